use super::*;

#[tokio::test]
async fn refuses_to_start_when_anything_is_not_as_it_must_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dev.key");
    let address = create_local_key(&path).unwrap();
    let start = |more: String| {
        let config = config(dir.path(), &more);
        async move { Signer::start(&config).await.map(drop).map_err(|error| error.to_string()) }
    };
    let pinned = |address: &str| {
        let cold = "[signer.keys.cold]\nlocal = { path = \"dev.key\" }";
        format!("{cold}\n[signer.keys.hot]\nlocal = {{ path = \"dev.key\" }}\naddress = \"{address}\"")
    };
    assert_eq!(start(pinned(&address.to_string())).await, Ok(()));
    let error = start(pinned(TO)).await.unwrap_err();
    assert!(error.contains("\"hot\"") && error.contains(TO) && error.contains(&address.to_string()), "{error}");

    let mut not_allowed = config(dir.path(), LOCAL);
    not_allowed.allow_local_keys = false;
    assert!(matches!(Signer::start(&not_allowed).await, Err(StartError::Key { .. })));

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(start(LOCAL.into()).await.unwrap_err().contains("mode 0644"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();

    let same = format!("again = {{ token_file = \"payments\", keys = [], policy = \"payouts\" }}\n{LOCAL}");
    assert!(start(same).await.unwrap_err().contains("same token"));

    // A socket that somebody serves, one that somebody left, and a file that is none.
    let socket = dir.path().join("run/s.sock");
    let alive = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(start(LOCAL.into()).await.unwrap_err().contains("something listens"));
    drop(alive);
    assert!(socket.exists());
    let signer = Signer::start(&config(dir.path(), LOCAL)).await.unwrap();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    drop(signer);
    assert!(!socket.exists());
    std::fs::write(&socket, "precious").unwrap();
    assert!(start(LOCAL.into()).await.unwrap_err().contains("no socket"));
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
}
