// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control socket and its client over a real Unix socket.

use std::os::unix::net::UnixListener as StdListener;
use std::sync::Mutex;

use axum::Json;
use axum::extract::State;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::*;
use crate::client::{Client, ClientError};
use crate::exit;
use nix::unistd::Uid;

/// Groups of the policy in these tests.
const CHANGERS: u32 = 4_000_001;
const READERS: u32 = 4_000_002;
/// Limit of every wait in these tests; none comes near it.
const PATIENCE: Duration = Duration::from_secs(20);

struct Fixture {
    dir: TempDir,
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<()>,
    /// Sent to when the connection of a request to `/v1/hold` has ended.
    held: Arc<Mutex<Option<oneshot::Receiver<u64>>>>,
}

impl Fixture {
    /// A server for a peer that is a member of `groups`.
    async fn new(groups: &'static [u32]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let held = Arc::new(Mutex::new(None));
        let router = Router::new()
            .route("/v1/status", get(|peer: Peer| async move { Json(json!({"uid": peer.uid})) }))
            .route("/v1/echo", post(|Json(value): Json<Value>| async move { Json(value) }))
            .route("/v1/busy", get(|| async { ApiError::busy("in use").with_remedy("wait") }))
            .route("/v1/stuck", get(std::future::pending::<()>))
            .route("/v1/lines", get(|| async { "{\"a\":1}\n\n{\"a\":2}\n" }))
            .route("/v1/torn", get(|| async { "{\"a\":1}\n{\"a\"" }))
            .route("/v1/hold", get(hold))
            .route("/v1/ends", post(ends))
            .with_state(held.clone());
        let policy = Policy::with_groups(&[], CHANGERS, READERS, move |_| Ok(groups.to_vec()));
        let server = ControlServer::bind(&dir.path().join("x.sock"), router, policy).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(server.run(async { stopped.await.unwrap_or(()) }));
        Self { dir, stop, server, held }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("x.sock")
    }

    fn client(&self) -> Client {
        Client::new("ipmi-mux", self.path()).with_timeout(PATIENCE)
    }

    /// Sends `request` as it is and returns the answer up to the end of the connection.
    async fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.path()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }
}

type Held = Arc<Mutex<Option<oneshot::Receiver<u64>>>>;

/// Answers with a line and then keeps the stream open.
async fn hold(State(held): State<Held>, connection: Connection) -> Lines {
    let (ended, receiver) = oneshot::channel();
    *held.lock().unwrap() = Some(receiver);
    let (sender, answer) = lines(1);
    sender.send(&"held").unwrap();
    tokio::spawn(async move {
        connection.closed().await;
        drop(sender);
        let _ = ended.send(connection.id());
    });
    answer
}

/// Answers with two lines of its own and the body, and ends.
async fn ends(Json(value): Json<Value>) -> Lines {
    let (sender, answer) = lines(2);
    sender.send(&1).unwrap();
    sender.send(&value).unwrap();
    assert_eq!(sender.send(&3), Err(NotSent), "only so many wait");
    answer
}

fn refusal(err: ClientError) -> (u16, String, Option<String>) {
    match err {
        ClientError::Refused { status, error, remedy } => (status, error, remedy),
        other => panic!("not a refusal: {other}"),
    }
}

#[tokio::test]
async fn a_changer_may_do_everything() {
    let fixture = Fixture::new(&[7, CHANGERS, READERS]).await;
    let status: Value = fixture.client().get_json("/v1/status").await.unwrap();
    assert_eq!(status["uid"], Uid::effective().as_raw());
    let sent = json!({"a": [1, "é"]});
    let echoed: Value = fixture.client().post_json("/v1/echo", &sent).await.unwrap();
    assert_eq!(echoed, sent);
    let mode = fs::metadata(fixture.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
}

#[tokio::test]
async fn a_reader_may_only_read() {
    let fixture = Fixture::new(&[READERS]).await;
    fixture.client().get_json::<Value>("/v1/status").await.unwrap();
    let err = fixture.client().post_json::<_, Value>("/v1/echo", &1).await.unwrap_err();
    assert_eq!(err.exit_code(), exit::FAILED);
    let (status, _, remedy) = refusal(err);
    assert_eq!(status, 403);
    assert_eq!(remedy.as_deref(), Some("join group midplane-read to read or midplane to change"));
    for method in ["PUT", "PATCH", "DELETE", "OPTIONS", "get", "X"] {
        let answer = fixture.raw(&format!("{method} /v1/status HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{method}: {answer}");
    }
}

#[tokio::test]
async fn others_may_do_nothing() {
    let fixture = Fixture::new(&[7]).await;
    let err = fixture.client().get_json::<Value>("/v1/status").await.unwrap_err();
    assert_eq!(
        err.to_string(),
        format!(
            "user {} may not read anything here; join group midplane-read to read or midplane to change",
            Uid::effective().as_raw()
        )
    );
}

#[test]
fn the_system_policy_trusts_root_and_itself() {
    let policy = format!("{:?}", Policy::system());
    assert!(policy.contains(&format!("[0, {}]", Uid::effective().as_raw())), "{policy}");
}

#[tokio::test]
async fn all_errors_are_json() {
    let fixture = Fixture::new(&[CHANGERS]).await;
    let error = |path: &'static str| {
        let client = fixture.client();
        async move { refusal(client.get_json::<Value>(path).await.unwrap_err()) }
    };
    assert_eq!(error("/v1/none").await, (404, "not found".to_owned(), None));
    assert_eq!(error("/v1/echo").await, (405, "method not allowed".to_owned(), None));
    let err = fixture.client().get_text("/v1/busy").await.unwrap_err();
    assert_eq!((err.to_string().as_str(), err.exit_code()), ("in use; wait", exit::BUSY));
    let head = "POST /v1/echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let answer = fixture.raw(&format!("{head}content-length: 1\r\n\r\n{{")).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("\r\n\r\n{\"error\":\"Failed to parse"), "{answer}");
}

#[tokio::test]
async fn a_large_body_is_refused() {
    let fixture = Fixture::new(&[CHANGERS]).await;
    let large = "x".repeat(http::BODY_LIMIT);
    let (status, error, _) =
        refusal(fixture.client().post_json::<_, Value>("/v1/echo", &large).await.unwrap_err());
    assert_eq!((status, error.as_str()), (413, "the request body is larger than 64 KiB"));
    let fits = "x".repeat(http::BODY_LIMIT - 2);
    let echoed: String = fixture.client().post_json("/v1/echo", &fits).await.unwrap();
    assert_eq!(echoed, fits);
}

#[tokio::test(start_paused = true)]
async fn stalled_peers_are_ended_and_hold_nobody() {
    let fixture = Fixture::new(&[CHANGERS]).await;
    let begun = tokio::time::Instant::now();
    let partial = [
        "",
        "GET /v1/sta",
        "POST /v1/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n[",
        "GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n",
    ];
    let mut stalled = Vec::new();
    for request in partial {
        let mut stream = UnixStream::connect(fixture.path()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stalled.push(stream);
    }
    fixture.client().get_json::<Value>("/v1/status").await.unwrap();
    assert!(begun.elapsed() < http::READ_LIMIT, "another client waited");
    for mut stream in stalled {
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    }
    assert!(begun.elapsed() < 2 * http::READ_LIMIT);
}

#[tokio::test]
async fn places_are_bounded_and_given_back() {
    let fixture = Fixture::new(&[READERS]).await;
    let mut streams = Vec::new();
    for _ in 0..READER_CONNECTIONS {
        let mut lines = fixture.client().get_lines("/v1/hold").await.unwrap();
        assert_eq!(lines.next().await.unwrap().as_deref(), Some("\"held\""));
        streams.push(lines);
    }
    let err = fixture.client().get_json::<Value>("/v1/status").await.unwrap_err();
    assert_eq!(err.exit_code(), exit::BUSY, "{err}");
    drop(streams);
    let free = async {
        while fixture.client().get_json::<Value>("/v1/status").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, free).await.expect("places come back");
}

#[test]
fn those_who_may_do_less_do_not_take_the_places_of_others() {
    let places = Places::new();
    let peer = |role| Ok(Peer { uid: 1, gid: 1, pid: None, role });
    let refused: Vec<_> = std::iter::from_fn(|| places.take(Err(1))).collect();
    assert_eq!(refused.len(), REFUSED_CONNECTIONS);
    let readers: Vec<_> = std::iter::from_fn(|| places.take(peer(Role::Reader))).collect();
    assert_eq!(readers.len(), READER_CONNECTIONS);
    assert!(matches!(places.take(peer(Role::Changer)), Some((_, Ok(_)))));
}

#[tokio::test]
async fn the_end_of_a_connection_is_told() {
    let fixture = Fixture::new(&[READERS]).await;
    let mut lines = fixture.client().get_lines("/v1/hold").await.unwrap();
    assert_eq!(lines.next().await.unwrap().as_deref(), Some("\"held\""));
    let mut ended = fixture.held.lock().unwrap().take().unwrap();
    assert!(ended.try_recv().is_err(), "it is still open");
    drop(lines);
    assert_eq!(timeout(PATIENCE, ended).await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn an_answer_of_lines_ends_with_its_sender() {
    let fixture = Fixture::new(&[CHANGERS]).await;
    let mut lines = fixture.client().post_lines("/v1/ends", &json!({"a": "\n"})).await.unwrap();
    for expected in [Some("1"), Some("{\"a\":\"\\n\"}"), None] {
        assert_eq!(lines.next().await.unwrap().as_deref(), expected);
    }
}

#[tokio::test]
async fn lines_come_one_by_one_and_a_torn_one_is_an_error() {
    let fixture = Fixture::new(&[READERS]).await;
    let mut lines = fixture.client().get_lines("/v1/lines").await.unwrap();
    for expected in [Some("{\"a\":1}"), Some(""), Some("{\"a\":2}"), None] {
        assert_eq!(lines.next().await.unwrap().as_deref(), expected);
    }
    let mut lines = fixture.client().get_lines("/v1/torn").await.unwrap();
    lines.next().await.unwrap();
    assert!(matches!(lines.next().await, Err(ClientError::Lost { .. })));
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let bind = || ControlServer::bind(&path, Router::new(), Policy::system());
    drop(StdListener::bind(&path).unwrap());
    let server = bind().await.expect("nobody listens");
    let err = bind().await.unwrap_err();
    assert!(matches!(err, BindError::AlreadyRunning { .. }), "{err}");
    drop(server);
    assert!(!path.exists());
    fs::write(&path, "precious").unwrap();
    let err = bind().await.unwrap_err();
    assert!(matches!(err, BindError::NotASocket { .. }), "{err}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn a_server_does_not_remove_the_socket_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let server = ControlServer::bind(&path, Router::new(), Policy::system()).await.unwrap();
    fs::rename(&path, dir.path().join("old.sock")).unwrap();
    let _other = StdListener::bind(&path).unwrap();
    drop(server);
    assert!(path.exists());
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_idle_and_stuck_connections_and_removes_the_socket() {
    let fixture = Fixture::new(&[CHANGERS]).await;
    let _idle = UnixStream::connect(fixture.path()).await.unwrap();
    let client = fixture.client();
    let stuck = tokio::spawn(async move { client.get_text("/v1/stuck").await });
    fixture.client().get_json::<Value>("/v1/status").await.unwrap();
    let path = fixture.path();
    fixture.stop.send(()).unwrap();
    timeout(STOP_GRACE * 2, fixture.server).await.unwrap().unwrap();
    assert!(!path.exists());
    assert!(matches!(stuck.await.unwrap(), Err(ClientError::Lost { .. })));
}

#[tokio::test]
async fn a_client_says_that_the_program_is_not_running() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ipmi-mux.sock");
    let ask = || async {
        Client::new("ipmi-mux", &path).get_text("/v1/status").await.unwrap_err().to_string()
    };
    let socket = path.display();
    assert_eq!(
        ask().await,
        format!("ipmi-mux is not running (no {socket}); start it with: systemctl start ipmi-mux")
    );
    drop(StdListener::bind(&path).unwrap());
    assert!(ask().await.contains(&format!("(nobody answers on {socket})")));
}

#[tokio::test]
async fn a_client_waits_only_so_long_and_decodes_only_what_fits() {
    let fixture = Fixture::new(&[CHANGERS]).await;
    let hasty = fixture.client().with_timeout(Duration::from_millis(20));
    let err = hasty.get_text("/v1/stuck").await.unwrap_err();
    assert!(matches!(err, ClientError::Timeout { .. }), "{err}");
    let err = fixture.client().get_json::<Vec<u8>>("/v1/status").await.unwrap_err();
    assert!(matches!(err, ClientError::Nonsense { .. }), "{err}");
}
