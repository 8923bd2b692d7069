//! A shared cache in front of the gateway.

use std::{
    fs,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    support::stage::{self, run},
    tools::Tools,
};

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn shared_cache_never_serves_another_callers_response() {
    let upstream = crate::support::upstream::Upstream::start(|seen, socket| {
        use std::io::Write as _;
        let user = seen.head.lines().find_map(|line| line.strip_prefix("x-permgate-token-id: "));
        let body = user.unwrap_or("nobody");
        let caching = "Cache-Control: public, max-age=60\r\nX-Accel-Expires: 60\r\nExpires: Fri, 01 Jan 2100 00:00:00 GMT";
        let length = body.len();
        socket.write_all(
            format!("HTTP/1.1 200 OK\r\n{caching}\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes(),
        )
    });
    let keys = "credentials = [\"bearer\", \"basic\", \"raw\", \"header:X-Api-Key\", \"websocket\"]";
    let tools = Tools::in_front_of(upstream.address, "\"/api\"", keys);
    let (address, dir) = (stage::vacant(), tools.dir.path().display());
    let config = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log stderr; events {{}}\nhttp {{\n access_log off;\n\
         proxy_cache_path {dir}/cache keys_zone=all:1m;\n client_body_temp_path {dir}/a; proxy_temp_path {dir}/b;\n\
         fastcgi_temp_path {dir}/c; uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;\n\
         server {{ listen {address}; location / {{ proxy_pass http://{}; proxy_cache all; proxy_cache_valid 200 60s; }} }}\n}}\n",
        tools.at()
    );
    fs::write(tools.place("nginx.conf"), config).unwrap();
    let mut nginx = Command::new("nginx");
    nginx
        .args(["-p", "/tmp", "-c"])
        .arg(tools.place("nginx.conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _nginx = stage::listening(&mut nginx, address);
    let get = |field: &str| {
        run(Command::new("curl").args(["-sS", "-H", field, &format!("http://{address}/api/x")]))
    };
    let carriers: [fn(&str) -> String; 5] = [
        |token| format!("X-Api-Key: {token}"),
        |token| format!("Authorization: Bearer {token}"),
        |token| format!("Authorization: Basic {}", STANDARD.encode(format!("a:{token}"))),
        |token| format!("Authorization: {token}"),
        |token| format!("Sec-WebSocket-Protocol: chat, permgate.bearer.{token}"),
    ];
    // Twice, so that stored responses are served; then without a token, and with bad ones.
    for _ in 0..2 {
        for carrier in carriers {
            for token in [&tools.full, &tools.read, &tools.full] {
                assert_eq!(get(&carrier(token)), token[4..16], "{}", carrier("TOKEN"));
            }
            for (row, token, expected) in &tools.bad {
                assert!(get(&carrier(token)).contains(expected), "{row}, {}", carrier("TOKEN"));
            }
        }
        assert!(get("Accept: */*").contains("No access token was sent"));
    }
}
