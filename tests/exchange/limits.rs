//! What limits an exchange: the issuer's keys, the quota of a rule, and time.

use super::*;

#[test]
fn issuer_keys_are_cached_and_fetched_again() {
    let (issuer, upstream) = (Issuer::start(), Upstream::plain());
    let gateway = gateway(upstream.address, &rule(&issuer.url, "max_tokens = 3"));
    for jti in ["1", "2"] {
        assert_eq!(exchange(&gateway, &issuer.sign(&issuer.claims(jti)), &[]).status, 200);
    }
    assert_eq!(issuer.fetched.load(Ordering::SeqCst), 1);
    // Unknown key ids cause the gateway to fetch keys only rarely.
    let (new, public) = key("two");
    for jti in ["3", "4", "5"] {
        let made_up = issuer.sign_as(&issuer.claims(jti), "made up", &new);
        assert_eq!(exchange(&gateway, &made_up, &[]).status, 400);
    }
    assert!(issuer.fetched.load(Ordering::SeqCst) <= 2);
    issuer.keys.lock().unwrap().push(public);
    assert_eq!(exchange(&gateway, &issuer.sign(&issuer.claims("6")), &[]).status, 200);
    let full = exchange(&gateway, &issuer.sign(&issuer.claims("7")), &[]);
    check_refused("a quota of their own", &full, 429, "too_many_tokens");
    gateway.token("robot", "made by people", &["tracker"]);
    // The quota also holds after a restart.
    let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    let gateway = Gateway::on(gateway.stop(), &text);
    let full = exchange(&gateway, &issuer.sign(&issuer.claims("8")), &[]);
    check_refused("the quota after a restart", &full, 429, "too_many_tokens");
}

#[test]
fn job_token_that_expires_while_it_is_sent_is_not_exchanged() {
    let (issuer, upstream) = (Issuer::start(), Upstream::plain());
    let gateway = gateway(upstream.address, &rule(&issuer.url, ""));
    let mut claims = issuer.claims("slow");
    // A minute of leeway, less two seconds.
    claims["exp"] = json!(now() - 58);
    let token = issuer.sign(&claims);
    let form = [("grant_type", GRANT), ("subject_token_type", JWT), ("subject_token", &*token)];
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let (first, last) = form.split_at(20);
    let mut client = Client::tcp(gateway.proxy);
    let kind = "Content-Type: application/x-www-form-urlencoded";
    let length = form.len();
    client.send(format!(
        "POST /.permgate/token HTTP/1.1\r\nHost: gate.example\r\n{kind}\r\nContent-Length: {length}\r\n\r\n{first}"
    ));
    std::thread::sleep(Duration::from_secs(4));
    client.send(last);
    let said = check_refused("expired meanwhile", &client.answer("POST"), 400, "invalid_request");
    assert!(said.contains("expired"), "{said}");
}
