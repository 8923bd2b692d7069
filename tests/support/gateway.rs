//! A whole gateway in this process, with its store in a temporary directory and free ports.

use std::{net::SocketAddr, path::PathBuf};

use permgate::{
    app::{self, LocalAddr, Running, Signals},
    config,
    net::Address,
};
use tempfile::TempDir;

use super::http::{Answer, Client};

pub struct Gateway {
    pub dir: TempDir,
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    pub socket: PathBuf,
    running: Option<Running>,
}

impl Gateway {
    /// Starts with two services in front of one upstream: `tracker` on `/api` and `/rest` and `hub` on
    /// `/hub/api`, both readable by `developers`.
    pub fn start(upstream: SocketAddr) -> Self {
        Self::with(&Self::services(upstream))
    }

    pub fn services(upstream: SocketAddr) -> String {
        format!(
            r#"
[upstream.one]
urls = ["http://{upstream}"]
[service.tracker]
title = "Tracker"
upstream = "one"
paths = ["/api", "/rest"]
readers = ["developers"]
[service.hub]
title = "Hub"
upstream = "one"
paths = ["/hub/api"]
readers = ["developers"]
"#
        )
    }

    /// Starts with these sections after those of the listeners and the store.
    pub fn with(sections: &str) -> Self {
        Self::on(tempfile::tempdir().unwrap(), &Self::text(sections))
    }

    /// A complete gateway.toml with these sections.
    pub fn text(sections: &str) -> String {
        Self::text_with("", "", sections)
    }

    /// Like [`Gateway::text`], with more lines for the server and the admin listener.
    pub fn text_with(server: &str, admin: &str, sections: &str) -> String {
        format!(
            r#"
version = 1
[server]
listen = ["127.0.0.1:0"]
workers = 2
{server}
[admin]
listen = ["unix:permgate.sock", "127.0.0.1:0"]
{admin}
[store]
path = "data"
ballast = "64k"
[log]
access = "off"
{sections}"#
        )
    }

    /// Starts with this text in a directory that may already hold a store.
    pub fn on(dir: TempDir, text: &str) -> Self {
        let file = dir.path().join("gateway.toml");
        std::fs::write(&file, text).unwrap();
        let config = config::Config::load(&file).unwrap_or_else(|e| panic!("{e}"));
        let running = app::start(config, Signals::Ignored).unwrap_or_else(|e| panic!("{e}"));
        let tcp = |places: &[LocalAddr]| {
            let tcp = |place: &LocalAddr| if let Address::Tcp(a) = place.address { Some(a) } else { None };
            places.iter().find_map(tcp).unwrap()
        };
        let (proxy, admin) = (tcp(running.proxy()), tcp(running.admin()));
        let socket = dir.path().join("permgate.sock");
        Self { dir, proxy, admin, socket, running: Some(running) }
    }

    /// All addresses of the proxy and the admin listener.
    pub fn places(&self) -> impl Iterator<Item = &LocalAddr> {
        self.running.iter().flat_map(|running| running.proxy().iter().chain(running.admin()))
    }

    /// Replaces the sections after the listeners; takes effect with a reload.
    pub fn write(&self, sections: &str) {
        std::fs::write(self.dir.path().join("gateway.toml"), Self::text(sections)).unwrap();
    }

    /// A call as the operator, over the unix socket.
    pub fn operator(&self, method: &str, target: &str, body: Option<&str>) -> Answer {
        Client::unix(&self.socket).request(method, target, &[], body)
    }

    /// Like [`Gateway::operator`], but the call must succeed.
    pub fn must(&self, method: &str, target: &str, body: Option<&str>) -> serde_json::Value {
        let answer = self.operator(method, target, body);
        assert!(answer.status < 300, "{method} {target}: {} {}", answer.status, answer.text());
        if answer.body.is_empty() { serde_json::Value::Null } else { answer.json() }
    }

    /// Creates a user in `developers`.
    pub fn developer(&self, login: &str) {
        self.must("POST", "/v1/users", Some(&format!(r#"{{"login": "{login}"}}"#)));
        if self.operator("GET", "/v1/groups/developers", None).status == 404 {
            self.must("POST", "/v1/groups", Some(r#"{"name": "developers"}"#));
        }
        self.must("PUT", &format!("/v1/groups/developers/members/{login}"), None);
    }

    /// Creates a token. Returns its id and text.
    pub fn token(&self, login: &str, name: &str, scope: &[&str]) -> (String, String) {
        let scope: Vec<serde_json::Value> = scope
            .iter()
            .map(|entry| match entry.split_once(':') {
                Some((service, access)) => serde_json::json!({"service": service, "access": access}),
                None => serde_json::json!({"service": entry}),
            })
            .collect();
        let body = serde_json::json!({"name": name, "scope": scope}).to_string();
        let made = self.must("POST", &format!("/v1/users/{login}/tokens"), Some(&body));
        (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
    }

    /// Sends one request through the proxy on a new connection.
    pub fn get(&self, target: &str, token: Option<&str>) -> Answer {
        self.open(target, token).answer("GET")
    }

    /// Sends a request whose response the caller reads piece by piece.
    pub fn open(&self, target: &str, token: Option<&str>) -> Client {
        let mut client = Client::tcp(self.proxy);
        let bearer = token.map_or(String::new(), |t| format!("Authorization: Bearer {t}\r\n"));
        client.send(format!("GET {target} HTTP/1.1\r\nHost: gateway.example\r\n{bearer}\r\n"));
        client
    }

    /// Stops the gateway and returns the directory with its store.
    pub fn stop(mut self) -> TempDir {
        if let Some(running) = self.running.take() {
            running.stop();
        }
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }
}
