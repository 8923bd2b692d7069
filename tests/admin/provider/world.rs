//! A small OpenID Connect provider that follows the specification until a test breaks it.

use std::{
    collections::{HashMap, HashSet},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use permgate::{
    admin::{GroupMapping, Provider as Settings, SignIn},
    authz::rules::Secret,
};
use serde_json::{Value, json};

use crate::harness::Fixture;

const CLIENT: &str = "gate way";
pub const SECRET: &str = "a:secret/of+ours";

/// A provider on a free port.
pub struct Provider {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
    thread: Option<JoinHandle<()>>,
}

pub struct World {
    issuer: String,
    /// The key that signs, followed by the published keys.
    pub key: (String, Ed25519KeyPair),
    pub published: Vec<Value>,
    codes: HashMap<String, AuthorizationParameters>,
    redeemed: HashSet<String>,
    /// Claims about the user, merged over the defaults; `null` removes a claim.
    pub claims: Value,
    pub userinfo: Value,
    pub metadata: Value,
    pub header: Value,
    pub shows: ClientAuthMethod,
    asked: Vec<String>,
    pub down: bool,
    stop: bool,
}

/// How the client must authenticate.
pub enum ClientAuthMethod {
    Basic,
    Form,
    Nothing,
}

/// The parameters of an authorization request.
struct AuthorizationParameters {
    nonce: String,
    challenge: String,
    redirect: String,
}

fn base64(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for sextet in 0..=chunk.len() {
            text.push(char::from(alphabet[(bits >> (18 - 6 * sextet) & 63) as usize]));
        }
    }
    text
}

fn url64(bytes: &[u8]) -> String {
    base64(bytes, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
}

fn query(text: &str) -> HashMap<String, String> {
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

pub fn key(kid: &str) -> ((String, Ed25519KeyPair), Value) {
    let pair = Ed25519KeyPair::generate().unwrap();
    let x = url64(pair.public_key().as_ref());
    ((kid.to_owned(), pair), json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": x}))
}

impl Provider {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (key, jwk) = key("first");
        let world = Arc::new(Mutex::new(World {
            issuer: format!("http://{address}/realm"),
            key,
            published: vec![jwk],
            codes: HashMap::new(),
            redeemed: HashSet::new(),
            claims: json!({"sub": "1", "preferred_username": "zoe", "name": "Zoe", "groups": ["staff"]}),
            userinfo: json!({"sub": "1"}),
            metadata: json!({}),
            header: json!({}),
            shows: ClientAuthMethod::Basic,
            asked: Vec::new(),
            down: false,
            stop: false,
        }));
        let shared = world.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut world = shared.lock().unwrap();
                if world.stop {
                    return;
                }
                if let Ok(stream) = stream
                    && !world.down
                {
                    world.serve(stream);
                }
            }
        });
        Self { address, world, thread: Some(thread) }
    }

    pub fn settings(&self) -> Settings {
        let group = |claim: &str, group: &str| GroupMapping { claim: claim.into(), group: group.into() };
        Settings {
            issuer: self.world.lock().unwrap().issuer.clone(),
            client_id: CLIENT.into(),
            client_secret: Some(Secret(http::HeaderValue::from_static(SECRET))),
            title: "Example <ID>".into(),
            scopes: vec!["openid".into(), "groups".into()],
            login_claim: "preferred_username".into(),
            groups_claim: "groups".into(),
            groups: vec![group("staff", "developers"), group("ops", "ops")],
            link_logins: false,
            tls: None,
        }
    }

    pub fn gateway(&self) -> Fixture {
        self.gateway_with(self.settings())
    }

    pub fn gateway_with(&self, settings: Settings) -> Fixture {
        let url = Some("http://localhost".to_owned());
        Fixture::signed_in_by(None, SignIn { url, provider: Some(settings), ..SignIn::default() })
    }

    pub fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world.lock().unwrap());
    }

    /// How often a path was requested.
    pub fn request_count(&self, path: &str) -> usize {
        self.world.lock().unwrap().asked.iter().filter(|asked| asked.starts_with(path)).count()
    }

    /// The user consents. Returns the address that the browser is redirected to.
    pub fn consent(&self, location: &str) -> String {
        let mut world = self.world.lock().unwrap();
        let (endpoint, asked) = location.split_once('?').unwrap();
        assert_eq!(endpoint, format!("{}/auth", world.issuer));
        let asked = query(asked);
        assert_eq!(asked["response_type"], "code");
        assert_eq!(asked["client_id"], CLIENT);
        assert_eq!(asked["scope"], "openid groups");
        assert_eq!(asked["code_challenge_method"], "S256");
        assert_eq!(asked["redirect_uri"], "http://localhost/sign-in/oidc/callback");
        let code = format!("code-{}", world.codes.len());
        let (nonce, challenge) = (asked["nonce"].clone(), asked["code_challenge"].clone());
        let begun = AuthorizationParameters { nonce, challenge, redirect: asked["redirect_uri"].clone() };
        world.codes.insert(code.clone(), begun);
        let back = form_urlencoded::Serializer::new(String::new())
            .append_pair("code", &code)
            .append_pair("state", &asked["state"])
            .append_pair("iss", &world.issuer)
            .finish();
        format!("/sign-in/oidc/callback?{back}")
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.world.lock().unwrap().stop = true;
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

impl World {
    fn serve(&mut self, stream: TcpStream) {
        let mut reader = BufReader::new(&stream);
        let (mut line, mut length, mut authorization) = (String::new(), 0, String::new());
        reader.read_line(&mut line).unwrap();
        let target = line.split(' ').nth(1).unwrap().to_owned();
        loop {
            let mut field = String::new();
            reader.read_line(&mut field).unwrap();
            let Some((name, value)) = field.trim_end().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap(),
                "authorization" => value.clone_into(&mut authorization),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let body = String::from_utf8(body).unwrap();
        self.asked.push(target.clone());
        let (status, answer) = match target.as_str() {
            "/realm/.well-known/openid-configuration" => (200, self.discovery()),
            "/realm/jwks" => (200, json!({"keys": self.published})),
            "/realm/token" => self.token(&query(&body), &authorization),
            "/realm/userinfo" if authorization == "Bearer opaque" => (200, self.userinfo.clone()),
            _ => (404, json!({})),
        };
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n");
        let _ = write!(&stream, "{head}Content-Length: {}\r\n\r\n{answer}", answer.len());
    }

    fn discovery(&self) -> Value {
        let issuer = &self.issuer;
        let mut metadata = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/auth"),
            "token_endpoint": format!("{issuer}/token"),
            "userinfo_endpoint": format!("{issuer}/userinfo"),
            "jwks_uri": format!("{issuer}/jwks"),
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": true,
        });
        merge(&mut metadata, &self.metadata);
        metadata
    }

    fn token(&mut self, form: &HashMap<String, String>, authorization: &str) -> (u16, Value) {
        let refused = |error: &str| (400, json!({"error": error}));
        let standard = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let field = |name: &str| form.get(name).map(String::as_str);
        let shown = (authorization.trim_end_matches('='), field("client_id"), field("client_secret"));
        // RFC 6749, section 2.3.1: the client id "gate way" and the secret are form-encoded.
        let basic = format!("Basic {}", base64(b"gate+way:a%3Asecret%2Fof%2Bours", standard));
        let expected = match self.shows {
            ClientAuthMethod::Basic => (basic.as_str(), None, None),
            ClientAuthMethod::Form => ("", Some(CLIENT), Some(SECRET)),
            ClientAuthMethod::Nothing => ("", Some(CLIENT), None),
        };
        if shown != expected {
            return refused("invalid_client");
        }
        let Some(begun) = self.codes.get(&form["code"]) else { return refused("invalid_grant") };
        let challenge = url64(digest(&SHA256, form["code_verifier"].as_bytes()).as_ref());
        let fits = form["grant_type"] == "authorization_code"
            && form["redirect_uri"] == begun.redirect
            && challenge == begun.challenge;
        if !fits || !self.redeemed.insert(form["code"].clone()) {
            return refused("invalid_grant");
        }
        let mut claims = json!({
            "iss": self.issuer, "aud": CLIENT, "nonce": begun.nonce, "iat": now(), "exp": now() + 300,
        });
        merge(&mut claims, &self.claims);
        let mut header = json!({"alg": "EdDSA", "kid": self.key.0});
        merge(&mut header, &self.header);
        let input =
            format!("{}.{}", url64(header.to_string().as_bytes()), url64(claims.to_string().as_bytes()));
        let signature = url64(self.key.1.sign(input.as_bytes()).as_ref());
        let id_token = format!("{input}.{signature}");
        (200, json!({"token_type": "Bearer", "access_token": "opaque", "id_token": id_token}))
    }
}

pub fn merge(into: &mut Value, changes: &Value) {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(into.as_object_mut().unwrap().remove(name)),
            value => into[name] = value.clone(),
        }
    }
}
