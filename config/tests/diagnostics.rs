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
    ("bind = [\"127.0.0.1:8080\"]", "bind = [\"0.0.0.0:1\"]\ntimeouts = { idle = \"0s\" }", "a duration from 1ms"),
    ("bind = [\"127.0.0.1:8080\"]", "bind = [\"0.0.0.0:1\"]\ntimeouts = { send = \"367d\" }", "4:21: invalid value"),
    ("bind = [\"127.0.0.1:8080\"]", "bind = [\"0.0.0.0:1\"]\nlimits = { body_size = \"2PiB\" }", "up to 1PiB"),
    ("bind = [\"127.0.0.1:8080\"]", "bind = [\"0.0.0.0:1\"]\nlimits = { head_size = \"2MiB\" }", "head_size must be"),
    ("bind = [\"127.0.0.1:8080\"]", "bind = [\"0.0.0.0:1\"]\nlimits = { header_count = 201 }", "header_count must be"),
    ("\"127.0.0.1:8080\"", "\"[::ffff:127.0.0.1]:8080\"", "3:9: [::ffff:127.0.0.1]:8080 is an IPv4 address in IPv6"),
    ("\"127.0.0.1:8080\"", "\"224.0.0.1:8080\"", "3:9: 224.0.0.1:8080 is no address that clients connect to"),
    (
        "bind = [\"127.0.0.1:8080\"]",
        "bind = [\"0.0.0.0:1\"]\ntrusted_proxies = [\"::ffff:10.0.0.0/104\"]",
        "2:1: listener \"http\": ::ffff:10.0.0.0/104 in trusted_proxies is an IPv4 network in IPv6",
    ),
    (
        "bind = [\"127.0.0.1:8080\"]",
        "bind = [\"0.0.0.0:1\"]\ntrusted_proxies = [\"10.0.0.0/8\", \"10.0.0.0/33\"]",
        "4:19: expected an IP address, or a network as in \"10.0.0.0/8\", found \"10.0.0.0/33\"",
    ),
    (
        "bind = [\"127.0.0.1:8080\"]",
        "bind = [\"0.0.0.0:1\"]\ntrusted_proxies = [\"::ffff:10.0.0.1\"]",
        "2:1: listener \"http\": ::ffff:10.0.0.1/128 in trusted_proxies is an IPv4 network in IPv6",
    ),
    (
        "[listeners.http]",
        "[admin]\nlisten = \"127.0.0.1:9901\"\n[listeners.http]",
        "3:10: an admin listener on TCP needs",
    ),
    (
        "[listeners.http]",
        "[admin]\ntoken_file = \"t\"\n[listeners.http]",
        "3:14: a token is for an admin listener on TCP",
    ),
    (
        "[listeners.http]",
        "[admin]\nlisten = \"unix:a\"\ntoken_file = \"t\"\n[listeners.http]",
        "4:14: a token is for an admin listener on TCP",
    ),
    (
        "[listeners.http]",
        "[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"t\"\n[listeners.http]",
        "3:10: an admin listener needs a port",
    ),
    (
        "[listeners.http]",
        "[admin]\nlisten = \"10.0.0.1:9901\"\ntoken_file = \"t\"\n[listeners.http]",
        "3:10: 10.0.0.1:9901: the admin token crosses the network in the clear",
    ),
    ("[listeners.http]", "[admin]\nlisten = \"unix:a\\u0000b\"\n[listeners.http]", "3:10: a path has no NUL"),
    ("[listeners.http]", "[process]\nworkers = 0\n[listeners.http]", "\"auto\" or a number"),
    ("[listeners.http]", "[process]\nworkers = 10000\n[listeners.http]", "3:11: invalid value: integer `10000`"),
    ("[listeners.http]", "[process]\ndrain_timeout = \"0s\"\n[listeners.http]", "3:17: invalid value"),
    ("[listeners.http]", "[process]\ndrain_timeout = \"10000y\"\n[listeners.http]", "3:17: invalid value"),
    ("servers = [\"127.0.0.1:3000\"]", "servers = []", "has no servers"),
    ("servers = [\"127.0.0.1:3000\"]", "servers = [\"nowhere\"]", "5:11: expected \"HOST:PORT\""),
    ("servers = [\"127.0.0.1:3000\"]", "servers = [\"127.0.0.1:0\"]", "5:11: expected \"HOST:PORT\""),
    ("servers = [\"127.0.0.1:3000\"]", "servers = [\"a:0\"]", "5:11: expected \"HOST:PORT\""),
    ("servers = [\"127.0.0.1:3000\"]", "servers = [\"a:1\"]\ntimeouts = { connect = \"0ms\" }", "6:24: invalid value"),
    ("servers = [\"127.0.0.1:3000\"]", "servers = [\"a:1\"]\nmax_in_flight = 0", "lets no request through"),
    ("key = \"client-ip\"", "key = \"header:\"", "expected \"client-ip\""),
    ("key = \"client-ip\"", "key = \"header:X-Forwarded-For\"", "8:1: rate limit \"api\": clients write into"),
    ("key = \"client-ip\"", "key = \"header:x_real_ip\"", "8:1: rate limit \"api\": clients write into"),
    ("key = \"client-ip\"", "key = \"header:forwarded\"", "8:1: rate limit \"api\": clients write into"),
    ("rate = \"10/s\"", "rate = \"10/fortnight\"", "a rate such as"),
    ("rate = \"10/s\"", "rate = \"10/s\"\nmax_keys = 0", "remembers no key"),
    (
        "rate = \"10/s\"",
        "rate = \"10/s\"\nmax_keys = 16777217",
        "8:1: rate limit \"api\": max_keys is at most 16777216",
    ),
    ("rate = \"10/s\"", "rate = \"10/s\"\nmax_keys = 4294967296", "11:12: invalid value: integer"),
    ("rate = \"10/s\"", "rate = \"10/s\"\nburst = -1", "invalid value: integer `-1`"),
    ("rate = \"10/s\"", "rate = \"1/366d\"\nburst = 1", "8:1: rate limit \"api\": its burst would take"),
    ("rate = \"10/s\"", "rate = \"1/h\"\nburst = 4294967295", "8:1: rate limit \"api\": its burst would take"),
    ("rate = \"10/s\"", "rate = \"0/s\"", "a rate such as"),
    ("preset = \"strict\"", "preset = \"strictest\"", "unknown variant `strictest`"),
    ("preset = \"strict\"", "set = { \"content-length\" = \"1\" }", "not for a policy to change"),
    ("preset = \"strict\"", "set = { \"x y\" = \"1\" }", "is no header name"),
    ("preset = \"strict\"", "set = { \"x\" = \"a\\nb\" }", "must be visible ASCII"),
    ("preset = \"strict\"", "set = { \"x\" = \"a\\r\\nset-cookie: b\" }", "must be visible ASCII"),
    ("preset = \"strict\"", "set = { \"x\" = \"\\u0000\" }", "must be visible ASCII"),
    ("preset = \"strict\"", "set = { \"x\" = \" a\" }", "without space around it"),
    ("preset = \"strict\"", "set = { \"x\\r\\ny\" = \"1\" }", "is no header name"),
    ("preset = \"strict\"", "set = { \"Transfer-Encoding\" = \"chunked\" }", "not for a policy to change"),
    ("preset = \"strict\"", "set = { \"connection\" = \"close\" }", "not for a policy to change"),
    ("preset = \"strict\"", "set = { \"Keep-Alive\" = \"timeout=1\" }", "not for a policy to change"),
    ("preset = \"strict\"", "remove = [\"trailer\"]", "not for a policy to change"),
    ("preset = \"strict\"", "set = { \"X-Request-Id\" = \"1\" }", "is written by the gateway itself"),
    ("preset = \"strict\"", "set = { \"RateLimit\" = \"1\" }", "is written by the gateway itself"),
    ("preset = \"strict\"", "set = { \"retry-after\" = \"1\" }", "is written by the gateway itself"),
    ("preset = \"strict\"", "set = { \"content-type\" = \"text/html\" }", "is written by the gateway itself"),
    ("preset = \"strict\"", "set = { \"server\" = \"a\" }", "both set and removed"),
    ("preset = \"strict\"", "set = { \"x\" = \"a\", \"X\" = \"b\" }", "set twice"),
    ("preset = \"strict\"", "cookies = { same_site = \"none\" }", "must be secure"),
    ("name = \"api\"\nhosts", "name = \"a b\"\nhosts", "14:8: a route's name is made of"),
    ("\"api.test\"", "\"api.test:443\"", "15:9: expected a host name"),
    ("\"api.test\"", "\"api.test.\"", "15:9: expected a host name"),
    ("\"api.test\"", "\"[api.test]\"", "15:9: expected a host name"),
    ("\"api.test\"", "\"[10.0.0.1]\"", "15:9: expected a host name"),
    ("\"api.test\"", "\"bücher.test\"", "15:9: expected a host name"),
    ("\"api.test\"", "\"api test\"", "15:9: expected a host name"),
    ("\"api.test\"", "\"*\"", "15:9: expected a host name"),
    ("\"api.test\"", "\"https://api.test\"", "15:9: expected a host name"),
    ("path = \"/v1\"", "path = \"v1\"", "16:8: no request would match this path (a path begins with '/')"),
    ("path = \"/v1\"", "path = \"\"", "16:8: no request would match this path (a path begins with '/')"),
    ("path = \"/v1\"", "path = \"/a/../b\"", "16:8: no request would match this path (it has a '.' or '..'"),
    ("path = \"/v1\"", "path = { exact = \"/a/.\" }", "16:8: no request would match this path (it has a '.' or '..'"),
    ("path = \"/v1\"", "path = \"/a//b\"", "16:8: no request would match this path (it has '//')"),
    ("path = \"/v1\"", "path = \"/a//\"", "16:8: no request would match this path (it has '//')"),
    ("path = \"/v1\"", "path = \"//\"", "16:8: no request would match this path (it has '//')"),
    ("path = \"/v1\"", "path = \"/a%20b\"", "16:8: no request would match this path (it has a '%')"),
    ("path = \"/v1\"", "path = { exact = \"/%2e\" }", "16:8: no request would match this path (it has a '%')"),
    ("path = \"/v1\"", "path = '/a\\b'", "16:8: no request would match this path (it has a '\\')"),
    ("path = \"/v1\"", "path = \"/a?b\"", "16:8: no request would match this path (it has a '?' or '#')"),
    ("path = \"/v1\"", "path = \"/a\\tb\"", "16:8: no request would match this path (it has a character"),
    ("path = \"/v1\"", "path = \"/ä\"", "16:8: no request would match this path (it has a character"),
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
    ("\"unix:signer.sock\"", "\"127.0.0.1:1\"", "21:10: expected \"unix:PATH\", \"https://IP:PORT\" or \"http://IP"),
    (
        "\"unix:signer.sock\"",
        "[\"unix:a\", \"http://10.0.0.1:1\"]",
        "21:10: 10.0.0.1:1: tokens would cross the network",
    ),
    ("\"unix:signer.sock\"", "[\"unix:a\", \"http://0.0.0.0:1\"]", "21:10: 0.0.0.0:1: tokens would cross the network"),
    ("\"unix:signer.sock\"", "[\"unix:a\", \"https://10.0.0.1:1\"]", "21:10: an https:// listener needs a certificate"),
    ("\"unix:signer.sock\"", "[\"unix:a\", \"http://127.0.0.1:0\"]", "21:10: a listener of the signer needs a port"),
    ("\"unix:signer.sock\"", "[\"unix:a\", \"http://127.0.0.1:8080\"]", "21:10: 127.0.0.1:8080 is bound twice"),
    ("\"unix:signer.sock\"", "\"http://127.0.0.1:1\"", "30:1: caller \"payments\" is known by its user id, and"),
    ("\"sqlite:ledger.db\"", "\"sqlite:l\"\ntls = { cert = \"c\", key = \"k\" }", "23:7: [signer] tls is for https://"),
    ("\"sqlite:ledger.db\"", "\"sqlite:l\"\ntls = { cert = \"c\" }", "23:7: missing field `key`"),
    ("\"unix:signer.sock\"", "[]", "listens nowhere"),
    ("\"unix:signer.sock\"", "[\"unix:a\", \"unix:a\"]", "21:10: signer.listen and signer.listen are the same file"),
    ("\"unix:signer.sock\"", "\"unix:state/admin.sock\"", "21:10: signer.listen and admin.listen are the same file"),
    ("\"sqlite:ledger.db\"", "\"mysql:x\"", "22:10: expected \"sqlite:PATH\""),
    ("\"1234abcd-12ab-34cd-56ef-1234567890ab\"", "\"alias/hot\"", "24:18: a KMS key is named by its id or ARN"),
    ("1234567890ab\" }", "1234567890ab\", endpoint = \"localhost\" }", "a KMS endpoint is a URL"),
    ("kms = {", "local = { path = \"k\" }\nkms = {", "has both kms and local"),
    ("kms = { key_id = \"1234abcd-12ab-34cd-56ef-1234567890ab\" }", "local = { path = \"k\" }", "is kept in a file"),
    ("0x742d35Cc6634C0532925a3b844Bc454e4438f44e", "0x742d35Cc6634C0532925a3b844Bc454e4438f44E", "wrong checksum"),
    ("0x742d35Cc6634C0532925a3b844Bc454e4438f44e", "0x742d35Cc6634C0532925a3b844Bc9e7595f0bEb", "40 hex digits"),
    ("id = 137", "id = 0", "has id 0"),
    ("id = 137", "id = 137\n[signer.chains.matic]\nid = 137", "have the same id"),
    ("id = 137", "id = 137\nrpc = \"ws://s3cret.example\"", "28:7: expected a URL that begins with https://"),
    (
        "id = 137",
        "id = 137\nrpc = [\"https://a.example\", \"s3cret\"]",
        "28:7: expected a URL that begins with https://",
    ),
    ("id = 137", "id = 137\nrpc = \"https://s3cret@a.example/\"", "28:7: a node's URL has no user"),
    ("id = 137", "id = 137\nrpc = []", "has a list of no nodes as rpc"),
    ("id = 137", "id = 137\nrpc = \"https://a.example\"\nrpc_file = \"f\"", "has both rpc and rpc_file"),
    ("id = 137", "id = 137\nconfirmations = 0", "has 0 confirmations: from 1 to 10000"),
    ("id = 137", "id = 137\nstuck_after = \"soon\"", "a duration from 1ms to 366d"),
    (
        "chains = [\"polygon\"]",
        "rpc_methods = [\"eth_sendRawTransaction\"]",
        "29:15: unknown variant `eth_sendRawTransaction`",
    ),
    ("chains = [\"polygon\"]", "chains = [\"polygone\"]", "29:11: no signer.chains is named"),
    ("chains = [\"polygon\"]", "max_value = \"1\"", "an amount such as"),
    ("chains = [\"polygon\"]", "to = []\nfunctions = [\"f(uint)\"]", "30:13: uint is written uint256 in a signature"),
    ("chains = [\"polygon\"]", "to = []\nfunctions = [\"0xd0e30d\"]", "30:13: expected a selector of 0x and 8 hex"),
    ("chains = [\"polygon\"]", "functions = [\"deposit()\"]", "28:1: policy \"payouts\" lists functions, and not"),
    ("chains = [\"polygon\"]", "verifying_contracts = []", "28:1: policy \"payouts\" lists verifying_contracts, and"),
    ("chains = [\"polygon\"]", "delegates = [\"0x11\"]", "29:13: expected an address of 0x and 40 hex digits"),
    ("chains = [\"polygon\"]", "sign = [\"messages\"]", "29:9: unknown variant `messages`, expected one of"),
    ("chains = [\"polygon\"]", "sign = [\"authorization\"]", "28:1: policy \"payouts\" allows authorizations, and"),
    ("chains = [\"polygon\"]", "calls = []", "28:1: policy \"payouts\" lists calls, and restricts nothing"),
    ("chains = [\"polygon\"]", "hours = []", "29:9: policy \"payouts\" has no hours"),
    ("chains = [\"polygon\"]", "hours = [\"9-17\"]", "29:9: expected hours in UTC such as"),
    ("chains = [\"polygon\"]", "rate = \"often\"", "29:8: invalid value"),
    ("chains = [\"polygon\"]", "windows = [{ period = \"1h\" }]", "29:12: missing field `max`"),
    ("chains = [\"polygon\"]", "tokens.usd = {}", "29:14: token \"usd\" has no address"),
    ("chains = [\"polygon\"]", "tokens.usd = { amount = \"1\" }", "29:16: unknown field `amount`"),
    (
        "chains = [\"polygon\"]",
        "tokens.usd = { max_amount = \"1.5\" }",
        "has more decimals than the token's `decimals`, 0",
    ),
    ("chains = [\"polygon\"]", "tokens.\"0x11\" = {}", "token \"0x11\" has no address"),
    (
        "chains = [\"polygon\"]",
        "tokens.0x1111111111111111111111111111111111111111 = { address = \"0x2222222222222222222222222222222222222222\" }",
        "is named by an address that is not its",
    ),
    (
        "chains = [\"polygon\"]",
        "tokens.a.address = \"0x1111111111111111111111111111111111111111\"\ntokens.0x1111111111111111111111111111111111111111 = {}",
        "are the same contract",
    ),
    (
        "chains = [\"polygon\"]",
        "to = []\ntokens.0x1111111111111111111111111111111111111111 = {}",
        "is not in `to` of policy \"payouts\"",
    ),
    (
        "chains = [\"polygon\"]",
        "tokens.0x1111111111111111111111111111111111111111 = { approval_above = \"1\" }",
        "has approval_above, and nobody may approve it",
    ),
    ("chains = [\"polygon\"]", "require_approval = { from = [\"payments\"] }", "says who approves, and not what"),
    (
        "chains = [\"polygon\"]",
        "require_approval = { above = \"1 wei\", from = [\"nobody\"] }",
        "no signer.callers is named \"nobody\"",
    ),
    (
        "chains = [\"polygon\"]",
        "require_approval = { above = \"1 wei\", from = [\"payments\"] }",
        "29:20: nobody may approve what caller \"payments\" asks for",
    ),
    (
        "chains = [\"polygon\"]",
        "to = []\ncalls = [{ contract = \"0x1111111111111111111111111111111111111111\", function = \"f()\" }]",
        "30:10: 0x1111111111111111111111111111111111111111, on which f() may be called, is not in `to`",
    ),
    (
        "chains = [\"polygon\"]",
        "tokens = {}\nfunctions = [\"f()\"]\ncalls = [{ contract = \"0x1111111111111111111111111111111111111111\", function = \"f()\" }]",
        "f() may be called with any arguments: `functions` names it",
    ),
    (
        "chains = [\"polygon\"]",
        "tokens = {}\ncalls = [{ contract = \"0x1111111111111111111111111111111111111111\", function = \"transfer(address to,uint256)\" }]",
        "transfer(address,uint256) is read without being named",
    ),
    (
        "chains = [\"polygon\"]",
        "tokens = {}\ncalls = [{ contract = \"0x1111111111111111111111111111111111111111\", function = \"f(bool)\", arguments = { 1 = { max = 1 } } }]",
        "30:9: argument \"1\" of f(bool): there is no \"1\"",
    ),
    ("uid = 1001", "uid = 1001\ntoken_file = \"t\"", "needs one of token_file, token_sha256, uid and san"),
    ("uid = 1001", "san = \"spiffe://a/b\"", "31:7: caller \"payments\" is known by its certificate, and none"),
    ("uid = 1001", "san = \"\"", "31:7: a name in a certificate is visible ASCII"),
    ("uid = 1001", "token_sha256 = \"abc\"", "31:16: expected the 64 hex digits of a token's SHA-256"),
    ("uid = 1001", "", "needs one of token_file, token_sha256, uid and san"),
    ("keys = [\"hot\"]", "keys = [\"cold\"]", "32:9: no signer.keys is named"),
    ("policy = \"payouts\"", "policy = \"payout\"", "no signer.policies is named"),
    ("policy = \"payouts\"", "[signer.callers.other]\nuid = 1001\nkeys = []", "have the same uid"),
    ("policy = \"payouts\"", "", "has no policy: it may have nothing signed"),
    ("listen = \"unix:signer.sock\"", "listen = []", "21:10: the signer listens nowhere"),
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
fn limits_of_value_alone_limit_little() {
    let with = |limits: &str| found(&GOOD.replacen("chains = [\"polygon\"]", limits, 1));
    for limit in ["max_value", "daily_value"] {
        let said = with(&format!("{limit} = \"1 ether\""));
        assert!(said.contains("28:1: policy \"payouts\" limits value, and not who may be paid"), "{said}");
        assert!(said.contains("limits value, and not fees"), "{said}");
        let said = with(&format!("{limit} = \"1 ether\"\nto = []"));
        assert!(!said.contains("may be paid") && said.contains("not fees"), "{said}");
        let said = with(&format!("{limit} = \"1 ether\"\nmax_fee = \"1 ether\""));
        assert!(said.contains("may be paid") && !said.contains("not fees"), "{said}");
        assert_eq!(with(&format!("{limit} = \"1 ether\"\nto = []\nmax_fee = \"1 ether\"")), "");
    }
    assert_eq!(with("max_fee = \"1 ether\""), "");
}

/// Somebody who only approves is no asker whom nobody approves.
#[test]
fn who_only_approves_needs_no_key_and_no_approver() {
    let approval = "chains = [\"polygon\"]\nrequire_approval = { above = \"1 ether\", from = [\"security\"] }";
    let with = |security: &str| {
        let text = GOOD.replacen("chains = [\"polygon\"]", approval, 1);
        found(&format!("{text}[signer.callers.security]\nuid = 1002\n{security}"))
    };
    assert_eq!(with("keys = []"), "");
    assert_eq!(with("keys = []\npolicy = \"payouts\""), "");
    let said = with("keys = [\"hot\"]\npolicy = \"payouts\"");
    assert!(said.contains("nobody may approve what caller \"security\" asks for"), "{said}");
    assert!(with("keys = [\"hot\"]").contains("has no policy"));
}

/// What a name may have been meant to be is said with it.
#[test]
fn a_typing_error_is_answered_with_what_was_meant() {
    let source = Source { path: "keygate.toml".into(), text: GOOD.replacen("[signer.policies", "[signer.polices", 1) };
    let found = parse(source).unwrap_err();
    assert_eq!(found.found[0].help.as_deref(), Some("did you mean `policies`?"));
    assert!(found.render(false).contains("28:9"), "{}", found.render(false));
}

#[test]
fn the_examples_in_the_documents_are_good() {
    let blocks =
        |document: &'static str| document.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let signer = include_str!("../../docs/signer.md");
    let first = signer.split("<<END\n").nth(1).and_then(|rest| rest.split("END\n").next()).unwrap();
    assert!(first.starts_with("[signer]"), "{first}");
    assert_eq!(found(first), "", "{first}");
    let readme = include_str!("../../README.md");
    for (document, allowed) in [(readme, ""), (signer, "allow_local_keys = false")] {
        let example = blocks(document).find(|text| text.starts_with("[signer]")).unwrap();
        assert!(example.contains("max_value") && example.contains(allowed), "{example}");
        // In the one that has them all, keys in files are not allowed, for what is copied.
        let example = example.replace("allow_local_keys = false", "allow_local_keys = true");
        assert_eq!(found(&example), "", "{example}");
        // A policy that has every field goes into the same file.
        let policy = blocks(include_str!("../../docs/policies.md")).next().unwrap();
        assert_eq!(found(&format!("{example}\n{policy}")), "", "{policy}");
        for field in ["windows", "rate", "hours", "replacements", "require_approval", "tokens", "calls"] {
            assert!(policy.contains(field), "{field}");
        }
    }
}

/// A node's URL may hold a key: no finding shows it, whatever it is about.
#[test]
fn a_nodes_url_is_not_shown() {
    for rpc in [
        "\"http://node.example/s3cret\"",
        "[\"https://a.example/s3cret\", 7]",
        "\"https://s3cret@a.example/\"",
        "\"https://a.example/s3cret#x\"",
    ] {
        let chain = format!("[signer.chains]\npolygon = {{ id = 0, rpc = {rpc} }}");
        let text = GOOD.replacen("[signer.chains.polygon]\nid = 137", &chain, 1);
        let source = Source { path: "keygate.toml".into(), text };
        let found = match parse(source) {
            Ok(loaded) => loaded.warnings,
            Err(found) => found,
        };
        let json = serde_json::to_string(&found.json()).unwrap();
        let all = format!("{}{found}{json}", found.render(false));
        assert!(all.contains("polygon") && !all.contains("s3cret"), "{all}");
    }
    let plain = GOOD.replacen("id = 137", "id = 137\nrpc = \"http://10.0.0.1:8545\"", 1);
    let warnings = parse(Source { path: "keygate.toml".into(), text: plain }).unwrap().warnings;
    assert!(warnings.to_string().contains("asks a node over plain http"), "{warnings}");
}

#[test]
fn a_key_has_one_name() {
    let same = |key: &str, local: &str| {
        let more =
            format!("allow_local_keys = true\n[signer.keys.a]\n{key}\n[signer.keys.b]\n{local}\n[signer.keys.hot]");
        found(&GOOD.replacen("[signer.keys.hot]", &more, 1))
    };
    let fine = same("kms = { key_id = \"1\" }", "local = { path = \"k\" }");
    assert_eq!(fine, "");
    for id in
        ["1234abcd-12ab-34cd-56ef-1234567890ab", "arn:aws:kms:eu-west-1:1:key/1234abcd-12ab-34cd-56ef-1234567890AB"]
    {
        let said = same(&format!("kms = {{ key_id = \"{id}\" }}"), "local = { path = \"k\" }");
        assert!(said.contains("keys \"a\" and \"hot\" are the same key"), "{said}");
    }
    let elsewhere = "kms = { key_id = \"1234abcd-12ab-34cd-56ef-1234567890ab\", endpoint = \"http://kms.test\" }";
    assert_eq!(same(elsewhere, "local = { path = \"k\" }"), "");
    let said = same("local = { path = \"k\" }", "local = { path = \"k\" }");
    assert!(said.contains("keys \"a\" and \"b\" are the same key"), "{said}");
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
fn addresses_that_overlap_cannot_be_bound_side_by_side() {
    let with = |admin: &str, http: &str, other: &str| {
        let admin = match admin {
            "" => String::new(),
            admin => format!("[admin]\nlisten = \"{admin}\"\ntoken_file = \"t\"\n"),
        };
        let listeners = format!("{admin}[listeners.http]\nbind = [{http}]\n[listeners.other]\nbind = [{other}]");
        found(&GOOD.replace("[listeners.http]\nbind = [\"127.0.0.1:8080\"]", &listeners))
    };
    for (admin, http, other, said) in [
        ("", r#""0.0.0.0:80""#, r#""0.0.0.0:80""#, "5:9: 0.0.0.0:80 is bound twice (listener \"http\" has 0.0.0.0:80"),
        ("", r#""0.0.0.0:80", "127.0.0.1:80""#, "", "3:23: 127.0.0.1:80 and 0.0.0.0:80 cannot both be bound"),
        ("", r#""127.0.0.1:80""#, r#""0.0.0.0:80""#, "5:9: 0.0.0.0:80 and 127.0.0.1:80 cannot both be bound"),
        ("", r#""[::]:80""#, r#""[::1]:80""#, "5:9: [::1]:80 and [::]:80 cannot both be bound"),
        ("127.0.0.1:80", r#""127.0.0.1:80""#, "", "3:10: 127.0.0.1:80 is bound twice (listener \"http\" has"),
        ("127.0.0.1:80", r#""0.0.0.0:80""#, "", "3:10: 127.0.0.1:80 and 0.0.0.0:80 cannot both be bound"),
        ("[::]:80", r#""127.0.0.1:80""#, "", "3:10: 0.0.0.0:80 and 127.0.0.1:80 cannot both be bound"),
    ] {
        let found = with(admin, http, other);
        assert!(found.contains(said), "{admin} {http} {other} should say {said}, said {found}");
    }
    for (admin, http, other) in [
        ("", r#""0.0.0.0:80", "[::]:80""#, r#""0.0.0.0:443", "[::]:443""#),
        ("", r#""127.0.0.1:80", "127.0.0.2:80""#, r#""127.0.0.3:80""#),
        ("", r#""127.0.0.1:0", "127.0.0.1:0""#, r#""0.0.0.0:0""#),
        ("", r#""[fe80::1%1]:80", "[fe80::1%2]:80""#, r#""127.0.0.1:80""#),
        ("[::1]:80", r#""0.0.0.0:80""#, r#""127.0.0.1:81""#),
    ] {
        assert_eq!(with(admin, http, other), "", "{admin} {http} {other}");
    }
}

#[test]
fn a_sockets_path_has_107_bytes_at_most() {
    let socket = |length: usize| format!("/{}", "s".repeat(length - 1));
    let admin = |length| {
        let admin = format!("[admin]\nlisten = \"unix:{}\"\n[listeners.http]", socket(length));
        found(&GOOD.replace("[listeners.http]", &admin))
    };
    assert_eq!(admin(107), "");
    assert!(admin(108).starts_with("keygate.toml:3:10: a socket's path has 107 bytes at most"), "{}", admin(108));
    // The signer's is bound under another name first.
    let signer = |length| found(&GOOD.replace("unix:signer.sock", &format!("unix:{}", socket(length))));
    assert_eq!(signer(103), "");
    assert!(signer(104).starts_with("keygate.toml:21:10: a socket's path has 103 bytes at most"), "{}", signer(104));
}

#[test]
fn regular_expressions_that_are_too_large_together_are_an_error() {
    let routes = |count: usize, hosts: &dyn Fn(usize) -> String| -> String {
        let route = |n: usize| {
            let (hosts, route) = (hosts(n), "backends = [{ upstream = \"blue\" }]");
            format!(
                "[[routes]]\nname = \"r{n}\"\nhosts = [{hosts}]\npath = {{ regex = '^/{n}/\\w{{40}}$' }}\n{route}\n"
            )
        };
        format!("{GOOD}{}", (0..count).map(route).collect::<String>())
    };
    let one = |_| "\"large.test\"".to_owned();
    assert_eq!(found(&routes(1, &one)), "");
    let said = found(&routes(12, &one));
    assert!(said.contains("the regular expressions of large.test are too large together"), "{said}");
    assert!(said.starts_with("keygate.toml:92:8"), "{said}");
    assert_eq!(found(&routes(12, &|n| format!("\"h{n}.test\""))), "", "each host has a set of its own");
}

#[test]
fn a_route_has_64_backends_at_most() {
    let with = |count: usize| {
        let upstreams: String =
            (0..count).map(|n| format!("[upstreams.u{n}]\nservers = [\"a:{}\"]\n", n + 1)).collect();
        let backends: Vec<String> = (0..count).map(|n| format!("{{ upstream = \"u{n}\", weight = 10000 }}")).collect();
        found(&format!("{GOOD}{upstreams}[[routes]]\nname = \"many\"\nbackends = [{}]\n", backends.join(", ")))
    };
    assert_eq!(with(64), "");
    assert!(with(65).contains("route \"many\" has more than 64 backends"), "{}", with(65));
}

#[test]
fn what_a_limit_may_be() {
    for (rate, more) in [
        ("1/366d", ""),
        ("1/s", "burst = 31622399"),
        ("4294967295/5s", "burst = 4294967295"),
        ("10/s", "max_keys = 16777216"),
        ("10/s", "burst = 0"),
    ] {
        assert_eq!(found(&GOOD.replace("rate = \"10/s\"", &format!("rate = \"{rate}\"\n{more}"))), "", "{rate} {more}");
    }
}

#[test]
fn hosts_have_one_spelling() {
    let hosts = |host: &str| {
        let text = GOOD.replacen("\"api.test\"", &format!("\"{host}\""), 1);
        let source = Source { path: "keygate.toml".into(), text };
        parse(source).expect("a good file").config.routes[0].hosts[0].value.to_string()
    };
    for (host, means) in [
        ("API.Test", "api.test"),
        ("*.X.test", "*.x.test"),
        ("[::1]", "::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("10.0.0.1", "10.0.0.1"),
    ] {
        assert_eq!(hosts(host), means);
    }
}

#[test]
fn a_trusted_proxy_is_a_network_or_an_address() {
    let proxies = "bind = [\"127.0.0.1:8080\"]\ntrusted_proxies = [\"10.1.2.3\", \"fd00::1\", \"10.0.0.0/8\"]";
    let text = GOOD.replace("bind = [\"127.0.0.1:8080\"]", proxies);
    let loaded = parse(Source { path: "keygate.toml".into(), text }).expect("a good file");
    let trusted: Vec<String> =
        loaded.config.listeners["http"].trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(trusted, ["10.1.2.3/32", "fd00::1/128", "10.0.0.0/8"]);
}

#[test]
fn routes_without_listeners_are_warned_of() {
    let text = GOOD.replace("[listeners.http]\nbind = [\"127.0.0.1:8080\"]\n", "");
    assert_eq!(found(&text), "keygate.toml:11:1: there are routes, and no listeners: no request can come");
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
