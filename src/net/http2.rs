//! HTTP/2 on one connection: hyper serves its streams, each in its own task that can be aborted alone.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};

use hyper::{rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWrite as _;

use super::{
    Holder, RequestError, Service, Worker,
    body::Sent,
    connection::{ConnectionCommand, OpenStream, Phase, ResponseState},
    io::CancelIo,
    respond::respond,
};

/// The ALPN protocol name.
pub(super) const PROTOCOL: &[u8] = b"h2";

/// Streams that a client may have open at once.
const MAX_STREAMS: u32 = 100;
/// Bytes that a client may send before the service reads any: of one body, and of all bodies. If the budget
/// for receive buffers is used up, a new connection gets only `STREAM_WINDOW` for all bodies.
const STREAM_WINDOW: u32 = 64 << 10;
pub(super) const CONNECTION_WINDOW: u32 = 1 << 20;
/// Streams that a client may reset before they are accepted.
const RESETS_BEFORE_ACCEPT: usize = 20;
/// Streams that h2 may reset because of protocol errors.
const RESETS_FOR_ERRORS: usize = 100;
/// Bytes of one response that h2 buffers.
const SEND_BUFFER: usize = 16 << 10;

/// How many bytes more HTTP/2 counts per field than HTTP/1 (RFC 9113, 6.5.2).
const FIELD_OVERHEAD: usize = 32 - 4;

/// The GOAWAY error codes (RFC 9113, 7) for a connection that makes room, and for a client that sends too much
/// or too slowly.
const NO_ERROR: u32 = 0;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Runs streams on the worker's local runtime. hyper spawns a stream's task right after it has called the
/// service, which stores the stream in `current`.
#[derive(Clone, Default)]
struct StreamExecutor {
    current: Rc<Cell<Option<Rc<OpenStream>>>>,
}

/// Serves streams until the connection is over. Returns a last frame for the client if hyper has not written
/// one.
pub(super) async fn drive<S: Service>(
    io: &CancelIo,
    worker: &Rc<Worker>,
    service: &Rc<S>,
) -> Option<Vec<u8>> {
    let connection = io.connection();
    let streams = connection.enable_streams();
    io.watch_frames();
    let executor = StreamExecutor::default();
    let budget = &worker.budgets.receive_buffers;
    let window = budget.try_take(&Holder::default(), CONNECTION_WINDOW as usize);
    let (limits, current) = (worker.limits(), executor.current.clone());
    // The limit on a head, as HTTP/2 measures it.
    let field_section = u32::try_from(limits.head + limits.fields * FIELD_OVERHEAD).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(executor);
    builder
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(if window.is_some() { CONNECTION_WINDOW } else { STREAM_WINDOW })
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(field_section)
        .max_pending_accept_reset_streams(RESETS_BEFORE_ACCEPT)
        .max_local_error_reset_streams(RESETS_FOR_ERRORS)
        .max_send_buf_size(SEND_BUFFER)
        .enable_connect_protocol()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.ping)
        // The ticker closes silent clients, even if no byte can be written to them.
        .keep_alive_timeout(2 * limits.ping);
    let mut http = Box::pin(builder.serve_connection(
        TokioIo::new(io.clone()),
        service_fn(|request| {
            connection.clock().refresh();
            let open = Rc::new(OpenStream::new(connection, worker));
            current.set(Some(open.clone()));
            let stream = open.stream.clone();
            respond(service.clone(), request, stream, Some(open), worker, Sent::default())
        }),
    ));
    let mut leaving = false;
    let goaway = poll_fn(|cx| {
        let mut leave = worker.draining();
        match connection.poll_command(cx) {
            Some(ConnectionCommand::Abort) => return Poll::Ready(None),
            Some(ConnectionCommand::Close) if leaving => return Poll::Ready(None),
            Some(ConnectionCommand::Close) => leave = true,
            Some(ConnectionCommand::MakeRoom) => {
                // The final GOAWAY, by which the client knows which requests were not processed. Nothing
                // waits until it is read.
                if io.is_between_writes() {
                    let mut io = io.clone();
                    let frame = goaway(io.last_stream(), NO_ERROR);
                    let _ = Pin::new(&mut io).poll_write(cx, &frame);
                    let _ = Pin::new(&mut io).poll_shutdown(cx);
                }
                return Poll::Ready(None);
            }
            Some(ConnectionCommand::Reject(error)) => {
                service.reject(error, None, connection);
                return Poll::Ready(
                    io.is_between_writes().then(|| goaway(io.last_stream(), ENHANCE_YOUR_CALM)),
                );
            }
            None => {}
        }
        if leave && !leaving {
            leaving = true;
            http.as_mut().graceful_shutdown();
        }
        let mut over = http.as_mut().poll(cx);
        // hyper gives up the connection at a CONNECT that announces a body, after it has reset the stream.
        // Other streams may be those of other clients, if a proxy in front shares the connection between
        // them.
        for _ in 0..MAX_STREAMS {
            if !matches!(over, Poll::Ready(Ok(()))) || streams.is_empty() || connection.has_ended() {
                break;
            }
            over = http.as_mut().poll(cx);
        }
        if connection.is_rejected() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if leaving && streams.is_empty() && connection.phase() != Phase::Closing {
            connection.enter(Phase::Closing);
        }
        over.map(|over| {
            if over.is_err() && !connection.has_ended() && !connection.aborted() {
                // hyper has sent a GOAWAY. This only counts and logs the error.
                service.reject(RequestError::BadRequest("a violation of HTTP/2"), None, connection);
            }
            None
        })
    })
    .await;
    drop(http);
    // No stream outlives its connection.
    streams.abort_all();
    poll_fn(|cx| {
        connection.register(cx);
        if streams.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    goaway
}

fn goaway(last_stream: u32, code: u32) -> Vec<u8> {
    let head = [0, 0, 8, 7, 0, 0, 0, 0, 0];
    [&head[..], &last_stream.to_be_bytes(), &code.to_be_bytes()].concat()
}

impl<F: Future<Output = ()> + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, future: F) {
        let Some(open) = self.current.take() else { return };
        let (current, running) = (self.current.clone(), open.clone());
        let task = tokio::task::spawn_local(async move {
            let open = running;
            {
                let mut future = pin!(future);
                poll_fn(|cx| {
                    open.stream.register(cx);
                    if let Some(stream) = open.stream.stream() {
                        let _ = stream.poll_leftover(cx);
                    }
                    // For a task that the future spawns in turn, such as for an upgrade.
                    current.set(Some(open.clone()));
                    let done = future.as_mut().poll(cx);
                    current.take();
                    done
                })
                .await;
            }
            linger(&open).await;
        });
        if let Some(stream) = open.stream.stream() {
            stream.add_task(task.abort_handle());
        }
    }
}

/// Reads on for a moment after a response that did not need the whole request. Many clients read the response
/// only after sending their body, and some treat the reset that RFC 9113, 8.1 allows as a failure.
async fn linger(open: &OpenStream) {
    let stream = &open.stream;
    if stream.exchange.response_state() == ResponseState::Open && !stream.aborted() && !stream.has_ended() {
        return open.cancelled();
    }
    // A tunnel has no such deadline.
    if stream.phase() != Phase::Serving || !stream.exchange.is_unread() {
        return;
    }
    stream.enter(Phase::Closing);
    poll_fn(|cx| {
        if stream.poll_command(cx).is_some() {
            return Poll::Ready(());
        }
        // The upstream's connection drops the body a moment after the response, and wakes this task.
        if stream.exchange.holds_body() {
            return Poll::Pending;
        }
        stream.stream().map_or(Poll::Ready(()), |stream| stream.poll_leftover(cx))
    })
    .await;
}
