//! The user that the signer runs as.

use std::ffi::CString;

use nix::unistd::{User, geteuid, initgroups, setgid, setuid};

/// Why the signer cannot run as the user that the file names.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// There is no such user.
    #[error("[signer] user: this machine has no user {0:?}")]
    Unknown(String),
    /// Somebody else starts it.
    #[error("[signer] user: only root can become {0:?}: start the signer as root or as that user, or leave user out")]
    NotRoot(String),
    /// The operating system's word.
    #[error("[signer] user {0:?}: {1}")]
    System(String, std::io::Error),
}

/// The user to become: nobody, when the file names none, or this process is that user already.
pub(crate) fn user(config: &keygate_config::Signer) -> Result<Option<User>, UserError> {
    let Some(name) = config.user.as_ref().map(|user| &user.value) else { return Ok(None) };
    let system = |error: nix::Error| UserError::System(name.clone(), error.into());
    let user = User::from_name(name).map_err(system)?.ok_or_else(|| UserError::Unknown(name.clone()))?;
    match geteuid() {
        me if me == user.uid => Ok(None),
        me if me.is_root() => Ok(Some(user)),
        _ => Err(UserError::NotRoot(name.clone())),
    }
}

/// Becomes this user for good, with the groups that it is in.
pub(super) fn become_user(user: &User) -> Result<(), UserError> {
    let system = |error: std::io::Error| UserError::System(user.name.clone(), error);
    let name = CString::new(user.name.as_str()).map_err(|error| system(error.into()))?;
    let done = initgroups(&name, user.gid).and_then(|()| setgid(user.gid)).and_then(|()| setuid(user.uid));
    done.map_err(|error| system(error.into()))?;
    // What cannot be is looked at all the same: nothing after this line is done as root.
    if setuid(nix::unistd::Uid::from_raw(0)).is_ok() && !user.uid.is_root() {
        return Err(system(std::io::Error::other("root's privileges could not be given up")));
    }
    Ok(())
}
