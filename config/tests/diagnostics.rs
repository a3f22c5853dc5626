//! Every error the file can have: what is said, and where.

use keygate_config::{Source, parse};

/// A complete file, which `parse` likes.
const GOOD: &str = r#"
[listeners.http]
bind = ["127.0.0.1:8080"]
[upstreams.blue]
servers = ["127.0.0.1:3000"]
[upstreams.green]
servers = ["green.internal:3000", "[::1]:3000"]
[rate_limits.api]
key = "client-ip"
rate = "10/s"
[security_headers.standard]
preset = "strict"
[[routes]]
name = "api"
hosts = ["api.test", "*.api.test"]
path = "/v1"
rate_limits = ["api"]
security_headers = "standard"
backends = [{ upstream = "blue", weight = 90 }, { upstream = "green", weight = 10 }]
[signer]
listen = "unix:signer.sock"
ledger = "sqlite:ledger.db"
[signer.keys.hot]
kms = { key_id = "1234abcd-12ab-34cd-56ef-1234567890ab" }
address = "0x742d35Cc6634C0532925a3b844Bc454e4438f44e"
[signer.chains.polygon]
id = 137
[signer.policies.payouts]
chains = ["polygon"]
[signer.callers.payments]
uid = 1001
keys = ["hot"]
policy = "payouts"
"#;

/// `file:line:column: message` of everything that is found in this text.
fn found(text: &str) -> String {
    let source = Source { path: "keygate.toml".into(), text: text.to_owned() };
    parse(source).map_or_else(|found| found.to_string(), |loaded| loaded.warnings.to_string())
}

#[test]
fn a_good_file_is_good() {
    assert_eq!(found(GOOD), "");
}

/// What stands in `GOOD`, what is put there instead, and what is said of it.
const BROKEN: &[(&str, &str, &str)] = &[
    ("weight = 90", "weigth = 90", "19:34: unknown field `weigth`"),
    ("[listeners.http]", "[listners.http]", "unknown field `listners`"),
    ("\"127.0.0.1:8080\"", "\"localhost:8080\"", "3:9: invalid socket address syntax"),
    ("bind = [\"127.0.0.1:8080\"]", "bind = []", "binds no address"),
    ("bind = [\"127.0.0.1:8080\"]", "bind = [\"127.0.0.1:8080\", \"127.0.0.1:8080\"]", "is bound twice"),
    ("bind = [\"127.0.0.1:8080\"]", "bind = [\"0.0.0.0:1\"]\ntls = { certificates = [] }", "has no certificate"),
    ("bind = [\"127.0.0.1:8080\"]", "bind = [\"0.0.0.0:1\"]\nlimits = { head_size = \"10B\" }", "head_size must be"),
    ("bind = [\"127.0.0.1:8080\"]", "bind = [\"0.0.0.0:1\"]\nlimits = { header_count = 0 }", "header_count must be"),
    ("bind = [\"127.0.0.1:8080\"]", "bind = [\"0.0.0.0:1\"]\nlimits = { connections = 0 }", "takes no connection"),
    ("bind = [\"127.0.0.1:8080\"]", "bind = [\"0.0.0.0:1\"]\nsecurity_headers = \"x\"", "no security_headers is named"),
    ("bind = [\"127.0.0.1:8080\"]", "bind = [\"0.0.0.0:1\"]\ntimeouts = { idle = \"0s\" }", "duration above zero"),
    (
        "[listeners.http]",
        "[admin]\nlisten = \"127.0.0.1:9901\"\n[listeners.http]",
        "3:10: an admin listener on TCP needs",
    ),
    ("[listeners.http]", "[process]\nworkers = 0\n[listeners.http]", "\"auto\" or a number"),
    ("servers = [\"127.0.0.1:3000\"]", "servers = []", "has no servers"),
    ("servers = [\"127.0.0.1:3000\"]", "servers = [\"nowhere\"]", "5:11: expected \"HOST:PORT\""),
    ("servers = [\"127.0.0.1:3000\"]", "servers = [\"a:1\"]\nmax_in_flight = 0", "lets no request through"),
    ("key = \"client-ip\"", "key = \"header:\"", "expected \"client-ip\""),
    ("rate = \"10/s\"", "rate = \"10/fortnight\"", "a rate such as"),
    ("rate = \"10/s\"", "rate = \"10/s\"\nmax_keys = 0", "remembers no key"),
    ("preset = \"strict\"", "preset = \"strictest\"", "unknown variant `strictest`"),
    ("preset = \"strict\"", "set = { \"content-length\" = \"1\" }", "not for a policy to change"),
    ("preset = \"strict\"", "set = { \"x y\" = \"1\" }", "is no header name"),
    ("preset = \"strict\"", "set = { \"x\" = \"a\\nb\" }", "must be visible ASCII"),
    ("preset = \"strict\"", "set = { \"server\" = \"a\" }", "both set and removed"),
    ("preset = \"strict\"", "set = { \"x\" = \"a\", \"X\" = \"b\" }", "set twice"),
    ("preset = \"strict\"", "cookies = { same_site = \"none\" }", "must be secure"),
    ("name = \"api\"\nhosts", "name = \"a b\"\nhosts", "14:8: a route's name is made of"),
    ("\"api.test\"", "\"api.test:443\"", "expected a host name"),
    ("path = \"/v1\"", "path = \"v1\"", "16:8: a path begins with '/'"),
    ("path = \"/v1\"", "path = \"/a/../b\"", "16:8: a path begins with '/'"),
    ("path = \"/v1\"", "path = { regex = \"(\" }", "16:8: not a regular expression"),
    ("path = \"/v1\"", "path = { prefix = \"/\" }", "unknown field `prefix`"),
    ("rate_limits = [\"api\"]", "rate_limits = [\"apo\"]", "17:16: no rate_limits is named \"apo\""),
    ("security_headers = \"standard\"", "security_headers = \"x\"", "no security_headers is named"),
    ("upstream = \"blue\"", "upstream = \"blu\"", "19:26: no upstreams is named \"blu\""),
    ("upstream = \"green\"", "upstream = \"blue\"", "names \"blue\" twice"),
    ("weight = 90", "weight = 10001", "at most 10000"),
    (
        "weight = 90 }, { upstream = \"green\", weight = 10",
        "weight = 0 }, { upstream = \"green\", weight = 0",
        "all its weights are 0",
    ),
    ("\"unix:signer.sock\"", "\"127.0.0.1:1\"", "21:10: the signer listens on Unix sockets only"),
    ("\"unix:signer.sock\"", "[]", "listens nowhere"),
    ("\"sqlite:ledger.db\"", "\"mysql:x\"", "22:10: expected \"sqlite:PATH\""),
    ("\"1234abcd-12ab-34cd-56ef-1234567890ab\"", "\"alias/hot\"", "24:18: a KMS key is named by its id or ARN"),
    ("1234567890ab\" }", "1234567890ab\", endpoint = \"localhost\" }", "a KMS endpoint is a URL"),
    ("kms = {", "local = { path = \"k\" }\nkms = {", "needs one of kms and local"),
    ("kms = { key_id = \"1234abcd-12ab-34cd-56ef-1234567890ab\" }", "local = { path = \"k\" }", "is kept in a file"),
    ("0x742d35Cc6634C0532925a3b844Bc454e4438f44e", "0x742d35Cc6634C0532925a3b844Bc454e4438f44E", "wrong checksum"),
    ("0x742d35Cc6634C0532925a3b844Bc454e4438f44e", "0x742d35Cc6634C0532925a3b844Bc9e7595f0bEb", "40 hex digits"),
    ("id = 137", "id = 0", "has id 0"),
    ("id = 137", "id = 137\n[signer.chains.matic]\nid = 137", "have the same id"),
    ("chains = [\"polygon\"]", "chains = [\"polygone\"]", "29:11: no signer.chains is named"),
    ("chains = [\"polygon\"]", "max_value = \"1\"", "an amount such as"),
    ("chains = [\"polygon\"]", "to = []\nfunctions = [\"f(uint)\"]", "30:13: uint is written uint256 in a signature"),
    ("chains = [\"polygon\"]", "to = []\nfunctions = [\"0xd0e30d\"]", "30:13: expected a selector of 0x and 8 hex"),
    ("chains = [\"polygon\"]", "functions = [\"deposit()\"]", "28:1: policy \"payouts\" lists functions, and not"),
    ("uid = 1001", "uid = 1001\ntoken_file = \"t\"", "needs one of token_file and uid"),
    ("uid = 1001", "", "needs one of token_file and uid"),
    ("keys = [\"hot\"]", "keys = [\"cold\"]", "32:9: no signer.keys is named"),
    ("policy = \"payouts\"", "policy = \"payout\"", "no signer.policies is named"),
    ("policy = \"payouts\"", "[signer.callers.other]\nuid = 1001\nkeys = []", "have the same uid"),
    ("policy = \"payouts\"", "", "has no policy: it may have nothing signed"),
];

#[test]
fn every_error_says_what_and_where() {
    let mut wrong = String::new();
    for (good, bad, said) in BROKEN {
        assert!(GOOD.contains(good), "{good}");
        let found = found(&GOOD.replacen(good, bad, 1));
        if !found.starts_with("keygate.toml") || !found.contains(said) {
            wrong += &format!("{bad}\n  should say {said}\n  said       {found}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn ambiguous_routes_are_errors_whatever_their_order() {
    let route = |name: &str, hosts: &str, path: &str| {
        format!(
            "[[routes]]\nname = \"{name}\"\nhosts = {hosts}\npath = {path}\nbackends = [{{ upstream = \"blue\" }}]\n"
        )
    };
    let ambiguous = [
        (r#"["api.test"]"#, r#""/v1""#),
        (r#"["API.test"]"#, r#""/v1/""#),
        (r#"["x.test", "*.api.test"]"#, r#""/v1""#),
    ];
    for (hosts, path) in ambiguous {
        let text = format!("{GOOD}{}", route("other", hosts, path)).replace("[[routes]]", "\n[[routes]]");
        assert!(found(&text).contains("is ambiguous"), "{hosts} {path}");
    }
    let fine = [(r#"["api.test"]"#, r#"{ exact = "/v1" }"#), (r#"["b.api.test"]"#, r#""/v1""#), ("[]", r#""/v1""#)];
    for (hosts, path) in fine {
        assert_eq!(found(&format!("{GOOD}{}", route("other", hosts, path))), "", "{hosts} {path}");
    }
    let two = |a: &str, b: &str| format!("{GOOD}{}{}", route("one", "[]", a), route("two", "[]", b));
    let said = found(&two(r#"{ regex = "^/v[0-9]+/" }"#, r#"{ regex = "/users$" }"#));
    assert!(said.contains("route \"two\" is ambiguous") && said.contains("/users"), "{said}");
    assert_eq!(found(&two(r#"{ regex = "^/v1/" }"#, r#"{ regex = "^/v2/" }"#)), "");
}

#[test]
fn what_is_not_used_is_warned_of() {
    let text = format!("{GOOD}[upstreams.spare]\nservers = [\"a:1\"]\n");
    assert!(found(&text).contains("no route sends anything to upstream \"spare\""));
}

#[test]
fn rendered_as_a_compiler_does() {
    let source = Source { path: "keygate.toml".into(), text: GOOD.replace("weight = 90", "weight = 10001") };
    let rendered = parse(source).expect_err("the weight is too large").render(false);
    assert!(rendered.contains("error: a weight is at most 10000"), "{rendered}");
    assert!(rendered.contains("--> keygate.toml:19:13"), "{rendered}");
    assert!(rendered.contains("{ upstream = \"blue\", weight = 10001 }"), "{rendered}");
    assert!(rendered.contains("^^^"), "{rendered}");
}

#[test]
fn the_schema_knows_every_table() {
    let schema = keygate_config::schema();
    for table in ["process", "admin", "access_log", "listeners", "upstreams", "rate_limits", "routes", "signer"] {
        assert!(schema["properties"][table].is_object(), "{table}");
    }
    assert_eq!(schema["additionalProperties"], false);
}
