//! Requests of every make: mixed, doubled, nested, too long, too slow, no HTTP at all.

use std::io::{ErrorKind, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use uimgacc_api::Parameters;
use uimgacc_api::signature::sign;

use crate::stage::{ask, code, form, post, read, request, send, signed, two_projects};

const FORM: Option<&str> = Some("application/x-www-form-urlencoded");
const JSON: Option<&str> = Some("application/json");
const PAIRS: [(&str, &str); 4] = [
    ("Action", "GetUK8SImageAccelerate"),
    ("PublicKey", "a"),
    ("ProjectId", "org-a"),
    ("ClusterId", "uk8s-a"),
];

fn json(pairs: &[(String, String)]) -> String {
    let object: serde_json::Map<String, Value> = pairs
        .iter()
        .map(|(key, value)| (key.clone(), Value::from(value.clone())))
        .collect();
    Value::from(object).to_string()
}

#[test]
fn query_form_and_json_in_every_mix() {
    let server = two_projects();
    let all = signed(&PAIRS, "private-a");
    let whole = format!("/?{}", form(&all));
    let (first, rest) = all.split_at(2);
    let part = format!("/?{}", form(first));
    for bytes in [
        request("GET", &whole, None, b""),
        request("POST", &whole, None, b""),
        request("POST", "/", FORM, form(&all).as_bytes()),
        request(
            "POST",
            "/",
            Some("Application/JSON; charset=utf-8"),
            json(&all).as_bytes(),
        ),
        request("POST", "/", None, json(&all).as_bytes()),
        request("POST", &part, FORM, form(rest).as_bytes()),
        request("POST", &part, JSON, json(rest).as_bytes()),
        request("GET", &part, JSON, json(rest).as_bytes()),
    ] {
        let answer = ask(&server, &bytes);
        assert_eq!(
            code(&answer).0,
            0,
            "{}: {answer}",
            String::from_utf8_lossy(&bytes)
        );
    }
    // The same key twice, wherever.
    for bytes in [
        request("POST", &part, FORM, form(&all).as_bytes()),
        request("POST", &part, JSON, json(&all).as_bytes()),
        request("GET", &format!("{whole}&Action=x"), None, b""),
        request("POST", "/", JSON, br#"{"Action": "a", "Action": "b"}"#),
        request("POST", "/", JSON, br#"{"A": {"b": 1}, "A.b": 2}"#),
    ] {
        let (code, message) = code(&ask(&server, &bytes));
        assert_eq!(code, 230, "{message}");
    }
}

#[test]
fn bodies_that_make_no_sense() {
    let server = two_projects();
    let deep = format!("{}1{}", r#"{"a":"#.repeat(500), "}".repeat(500));
    let lists = format!(r#"{{"a": {}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
    let many = format!(
        "{{{}}}",
        (0..2000)
            .map(|n| format!("\"k{n}\":1"))
            .collect::<Vec<_>>()
            .join(",")
    );
    // Each item would repeat the key.
    let repeats = format!(r#"{{"{}":[{}1]}}"#, "k".repeat(14_000), "1,".repeat(900));
    for body in [
        "[]",
        "1",
        "null",
        "{",
        "{\"a\"}",
        "\u{feff}{}",
        "{\"a\": 1e999}",
        &deep,
        &repeats,
        &lists,
        &many,
    ] {
        let answer = ask(&server, &request("POST", "/", JSON, body.as_bytes()));
        assert_eq!(code(&answer).0, 230, "{body:.60}: {answer}");
    }
    for (kind, body) in [
        (Some("text/xml"), &b"<a/>"[..]),
        (Some("multipart/form-data; boundary=x"), b"--x--"),
        (Some("\u{e9}"), b"a=b"),
    ] {
        assert_eq!(
            code(&ask(&server, &request("POST", "/", kind, body))).0,
            230
        );
    }
    // Bytes that are no text are a value like any other, which nobody has signed.
    let all = form(&signed(&PAIRS, "private-a"));
    let answer = ask(
        &server,
        &request("POST", "/", FORM, format!("{all}&x=%ff%fe").as_bytes()),
    );
    assert_eq!(code(&answer).0, 171);
    assert_eq!(
        code(&ask(&server, &request("POST", "/", FORM, b"&&&=&=%"))).0,
        230
    );
}

#[test]
fn signatures_that_are_wrong_in_every_place() {
    let server = two_projects();
    let right = signed(&PAIRS, "private-a");
    let signature = right.last().unwrap().1.clone();
    let with = |signature: String| {
        let mut all = right.clone();
        all.last_mut().unwrap().1 = signature;
        code(&post(&server, &all)).0
    };
    assert_eq!(with(signature.clone()), 0);
    for at in 0..signature.len() {
        let mut wrong = signature.clone().into_bytes();
        wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
        assert_eq!(with(String::from_utf8(wrong).unwrap()), 171, "{at}");
    }
    for wrong in [
        signature.to_uppercase(),
        signature[..39].to_owned(),
        format!("{signature}0"),
        "f".repeat(5000),
        "\0".to_owned(),
    ] {
        assert_eq!(with(wrong), 171);
    }
    assert_eq!(with(String::new()), 170);
    // Sent again it is the same request: the protocol has nothing to tell it by.
    assert_eq!(with(signature), 0);
    // A parameter that was added, left out, or moved over the border of key and value.
    let mut added = right.clone();
    added.push(("Force".to_owned(), "true".to_owned()));
    assert_eq!(code(&post(&server, &added)).0, 171);
    let mut parameters = Parameters::default();
    for (key, value) in PAIRS {
        parameters.add(key.to_owned(), value.to_owned()).unwrap();
    }
    let moved = [
        ("Action", "GetUK8SImageAccelerate"),
        ("ClusterId", "uk8s-a"),
        ("ProjectId", "org-"),
        ("aPublicKey", "a"),
        ("Signature", &sign(&parameters, "private-a")),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(code(&post(&server, &moved)).0, 220);
}

#[test]
fn what_is_too_long_is_not_read() {
    let server = two_projects();
    let long = "x".repeat(20 << 10);
    let answer = ask(
        &server,
        &request("POST", "/", FORM, format!("a={long}").as_bytes()),
    );
    let (code, message) = code(&answer);
    assert_eq!(code, 230);
    assert!(message.contains("body is too long"), "{message}");
    // A query or a header of that length is HTTP's own error.
    for bytes in [
        request("GET", &format!("/?a={}", "x".repeat(40 << 10)), None, b""),
        request("GET", "/", Some(&"x".repeat(40 << 10)), b""),
    ] {
        let (head, _) = send(&server, &bytes);
        assert!(
            head.starts_with("HTTP/1.1 431") || head.starts_with("HTTP/1.1 414"),
            "{head}"
        );
    }
    // A body without end: what is read is no more than the limit.
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let sent = (0..100_000)
        .take_while(|_| stream.write_all(chunk.as_bytes()).is_ok())
        .count();
    assert!(sent < 10_000, "{sent} chunks were taken");
    let (_, most) = server.memory();
    assert!(most < 100 << 20, "{most}");
}

#[test]
fn who_is_slow_is_let_go() {
    let server = two_projects();
    let late = |begin: &[u8]| {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(begin).unwrap();
        let began = Instant::now();
        let answer = read(stream);
        (began.elapsed(), answer)
    };
    // Nothing, half a head, a head and half a body.
    for begin in [
        &b""[..],
        b"POST / HTTP/1.1\r\nHost:",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\na=",
    ] {
        let (took, (head, body)) = late(begin);
        assert!((4..9).contains(&took.as_secs()), "{took:?}: {head}{body}");
        if begin.ends_with(b"a=") {
            assert!(body.contains("comes too slowly"), "{head}{body}");
        }
    }
}

#[test]
fn the_metrics_have_limits_too() {
    let server = two_projects();
    let ask = || {
        let mut stream = TcpStream::connect(server.metrics_address()).unwrap();
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        read(stream).1
    };
    assert_eq!(ask(), "ok\n");
    let began = Instant::now();
    let silent: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(server.metrics_address()).unwrap())
        .collect();
    // One peer has so many connections; those above it are ended at once, the silent ones later.
    let open = || {
        let held = silent.iter().filter(|stream| {
            stream.set_nonblocking(true).unwrap();
            let silence = stream.peek(&mut [0]);
            silence.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        });
        held.count()
    };
    while open() > 64 {
        // Silence is ended after 3 s; this is earlier.
        assert!(began.elapsed() < Duration::from_secs(3), "{}", open());
        std::thread::sleep(Duration::from_millis(20));
    }
    // The question before may still have had its place when they came.
    assert!((63..=64).contains(&open()), "{}", open());
    while open() > 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", open());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(ask(), "ok\n");
}

#[test]
fn other_places_and_methods() {
    let server = two_projects();
    for (bytes, status) in [
        (request("GET", "/x", None, b""), "404"),
        (request("DELETE", "/", None, b""), "405"),
        (request("PUT", "/", FORM, b"a=b"), "405"),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            "400",
        ),
        (b"GET / HTTP/9.9\r\n\r\n".to_vec(), "400"),
        (b"GET http:///// HTTP/1.1\r\n\r\n".to_vec(), "4"),
    ] {
        let (head, _) = send(&server, &bytes);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}")) || head.is_empty(),
            "{head}"
        );
    }
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
