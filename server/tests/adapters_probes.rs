//! Probes against a server of raw sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has to stop")]

use roadstead_pipelines::spec::HttpProbe;
use roadstead_server::adapters::probes::Probes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers each request with what its path asks for.
async fn serve(listener: TcpListener) {
    loop {
        let (mut peer, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut request = vec![];
            while !request.ends_with(b"\r\n\r\n") {
                match peer.read_u8().await {
                    Ok(byte) => request.push(byte),
                    Err(_) => return,
                }
            }
            let request = String::from_utf8(request).unwrap();
            let answer = match request.split(' ').nth(1).unwrap() {
                "/good" => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nv1",
                "/moved" => "HTTP/1.1 302 Found\r\nlocation: /good\r\ncontent-length: 0\r\n\r\n",
                "/bad" => "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n",
                _ => "",
            };
            // An empty answer is a connection that closes.
            let _ = peer.write_all(answer.as_bytes()).await;
        });
    }
}

#[tokio::test]
async fn a_probe_takes_the_expected_answer_and_no_other() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(serve(listener));
    let probe = |path: &str, expect_status, expect_body: Option<&str>| HttpProbe {
        url: format!("http://{address}{path}"),
        expect_status,
        expect_body: expect_body.map(str::to_owned),
    };
    let asked = [
        probe("/good", 200, Some("v1")),
        probe("/moved", 302, None),
        probe("/good", 200, Some("v2")),
        probe("/bad", 200, None),
        probe("/moved", 200, None),
        probe("/closes", 200, None),
    ];
    let seen = Probes::new().unwrap().ask(&asked).await;
    let verdicts: Vec<_> = seen.iter().map(|probe| probe.ok).collect();
    assert_eq!(verdicts, [true, true, false, false, false, false]);
    assert!(
        seen[2].detail.contains("do not contain `v2`"),
        "{:?}",
        seen[2]
    );
    assert_eq!(seen[3].detail, "500 instead of 200");
    assert!(seen[5].detail.starts_with("no answer: "), "{:?}", seen[5]);
    serving.abort();
}
