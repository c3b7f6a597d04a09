"""Every option of every server: whether it means the same here, and what to write if it does not.

In relay mode the server runs chansup's relay, and app workers run the app. An option about the app
then has no effect, or another one. A test goes through all options of the installed servers, so
that a new one is looked at before anybody relies on it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from chansup.launch.options import OptionProblem


class Relayed(NamedTuple):
    """The relayed protocols, as far as options depend on them."""

    has_paths: bool  # routes with paths
    has_websockets: bool  # routes of WebSockets


class Difference(NamedTuple):
    """The difference of an option. `applies` takes its value; `relayed` is None if direct."""

    message: str
    applies: Callable[[object, Relayed | None], bool]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _in_relay_mode(_value: object, relayed: Relayed | None) -> bool:
    return relayed is not None


def _with_paths(value: object, relayed: Relayed | None) -> bool:
    return relayed is not None and relayed.has_paths and bool(value)


def _without_websockets(value: object, relayed: Relayed | None) -> bool:
    return value is False and (relayed is None or relayed.has_websockets)


def _relative(value: object, relayed: Relayed | None) -> bool:
    paths = value if isinstance(value, list) else [value]
    return relayed is not None and not all(str(path).startswith("/") for path in paths)


def _always(_value: object, _relayed: Relayed | None) -> bool:
    return True


_LIFESPAN = Difference(
    "has no effect in relay mode: app workers run the app's lifespan, if it has one. Remove it",
    _in_relay_mode,
)
_LIFESPAN_TIME = Difference(
    "has no effect on your app in relay mode: write start_timeout or stop_timeout into the table "
    "of the app workers",
    _in_relay_mode,
)
_ROOT_PATH = Difference(
    "stands before the path that routes are compared with: write it into the routes as well, "
    "or let the proxy strip it",
    _with_paths,
)
_ADMISSION = Difference(
    "counts open connections of an interface process in relay mode, WebSockets included: write "
    "concurrency and queue_limit into the table of the app workers",
    _in_relay_mode,
)
_REQUESTS = Difference(
    "ends the process that holds the connections in relay mode, and closes its WebSockets: "
    "remove it. `chansup restart NAME` replaces app workers",
    _in_relay_mode,
)
_THREADS = Difference(
    "is about a WSGI app, which app workers run in relay mode: write threads into their table",
    _in_relay_mode,
)
_CONTEXT = Difference(
    "is about the app, which app workers run in relay mode: remove it", _in_relay_mode
)
_STATIC = Difference(
    "is relative to the directory of the config file in relay mode, and is read when the interface "
    "starts, which a reload keeps: write an absolute path that outlives releases",
    _relative,
)
_NO_WEBSOCKETS = Difference(
    "false refuses every WebSocket before it reaches the app: remove it", _without_websockets
)
_CLOSE_TIME = Difference(
    "is about the relay in relay mode, and not about your app: remove it", _in_relay_mode
)
_WSGI_BODY = Difference(
    "has no effect: a WSGI app runs behind another adapter. Limit bodies in the proxy", _always
)
_ARBITER = Difference("has no effect: chansup stands in for gunicorn's arbiter. Remove it", _always)
_SIGNAL_HOOK = Difference("has no effect: chansup handles the signals. Remove it", _always)
_LOADING = Difference("has no effect: chansup loads the app. Remove it", _always)

DIFFERENT: dict[str, dict[str, Difference]] = {
    "uvicorn": {
        "lifespan": _LIFESPAN,
        "limit_concurrency": _ADMISSION,
        "limit_max_requests": _REQUESTS,
        "limit_max_requests_jitter": _REQUESTS,
        "reset_contextvars": _CONTEXT,
        "root_path": _ROOT_PATH,
    },
    "granian": {
        "backpressure": _ADMISSION,
        "blocking_threads": _THREADS,
        "blocking_threads_idle_timeout": _THREADS,
        "static_path_mount": _STATIC,
        "url_path_prefix": _ROOT_PATH,
        "websockets": _NO_WEBSOCKETS,
    },
    "hypercorn": {
        "root_path": _ROOT_PATH,
        "shutdown_timeout": _LIFESPAN_TIME,
        "startup_timeout": _LIFESPAN_TIME,
        "wsgi_max_body_size": _WSGI_BODY,
    },
    "daphne": {
        "application_close_timeout": _CLOSE_TIME,
        "root_path": _ROOT_PATH,
    },
    "gunicorn": {  # never in relay mode
        **dict.fromkeys(
            _names(
                "child_exit control_socket control_socket_disable control_socket_mode "
                "default_proc_name dirty_apps dirty_graceful_timeout dirty_post_fork dirty_threads "
                "dirty_timeout dirty_worker_exit dirty_worker_init dirty_workers "
                "enable_backlog_metric enable_stdio_inheritance nworkers_changed on_dirty_starting "
                "on_exit on_reload on_starting post_fork pre_exec pre_fork when_ready worker_exit"
            ),
            _ARBITER,
        ),
        **dict.fromkeys(("worker_abort", "worker_int"), _SIGNAL_HOOK),
        **dict.fromkeys(("paste", "raw_paste_global_conf"), _LOADING),
    },
}
SAME: dict[str, frozenset[str]] = {
    "uvicorn": _names(
        "access_log date_header forwarded_allow_ips h11_max_incomplete_event_size headers http "
        "http2 log_config log_level loop proxy_headers server_header ssl_ca_certs ssl_cert_reqs "
        "ssl_certfile ssl_ciphers ssl_context_factory ssl_keyfile ssl_keyfile_password ssl_version "
        "timeout_keep_alive use_colors ws ws_max_queue ws_max_size ws_per_message_deflate "
        "ws_ping_interval ws_ping_timeout"
    ),
    "granian": _names(
        "http http1_settings http2_settings log_access log_access_format log_dictconfig "
        "log_enabled log_level loop runtime_blocking_threads runtime_mode runtime_threads ssl_ca "
        "ssl_cert ssl_client_verify ssl_crl ssl_key ssl_key_password ssl_protocol_min "
        "static_path_dir_to_file static_path_expires static_path_route task_impl"
    ),
    "hypercorn": _names(
        "access_log_format accesslog alpn_protocols alt_svc_headers ca_certs certfile ciphers "
        "dogstatsd_tags errorlog h11_max_incomplete_size h11_pass_raw_headers "
        "h2_max_concurrent_streams h2_max_header_list_size h2_max_inbound_frame_size "
        "include_date_header include_server_header keep_alive_max_requests keep_alive_timeout "
        "keyfile keyfile_password logconfig logconfig_dict loglevel max_app_queue_size "
        "read_timeout server_names ssl_handshake_timeout statsd_host statsd_prefix "
        "websocket_max_message_size websocket_ping_interval worker_class"
    ),
    "daphne": _names(
        "access_log certKey extraCertChain http_timeout log_fmt no_server_name ping_interval "
        "ping_timeout privateKey proxy_forwarded_address_header proxy_forwarded_port_header "
        "proxy_forwarded_proto_header proxy_headers proxy_headers_host proxy_headers_port "
        "request_buffer_size server_name verbosity websocket_connect_timeout "
        "websocket_handshake_timeout websocket_max_frame_size websocket_max_message_size "
        "websocket_timeout"
    ),
    "gunicorn": _names(
        "access_log_format accesslog asgi_disconnect_grace_period asgi_lifespan asgi_loop ca_certs "
        "capture_output casefold_http_method cert_reqs certfile ciphers "
        "disable_redirect_access_to_syslog do_handshake_on_connect dogstatsd_tags errorlog "
        "forwarded_allow_ips forwarder_headers header_map http2_cleartext "
        "http2_initial_window_size http2_max_concurrent_streams http2_max_frame_size "
        "http2_max_header_list_size http_parser "
        "http_protocols keepalive keyfile limit_request_field_size limit_request_fields "
        "limit_request_line logconfig logconfig_dict logconfig_json logger_class loglevel "
        "permit_obsolete_folding permit_unconventional_http_method "
        "permit_unconventional_http_version post_request post_worker_init pre_request protocol "
        "proxy_allow_ips proxy_protocol root_path secure_scheme_headers sendfile spew ssl_context "
        "ssl_version statsd_host statsd_prefix strip_header_spaces suppress_ragged_eofs syslog "
        "syslog_addr syslog_facility syslog_prefix threads tmp_upload_dir uwsgi_allow_ips "
        "websocket_max_message_size worker_class worker_connections worker_tmp_dir"
    ),
}  # limits in these are those of one process, as they are in the servers' own


def of(
    server: str, options: Mapping[str, object], relayed: Relayed | None
) -> Iterator[OptionProblem]:
    """Yield the options that a server takes and that do something else than one may expect."""
    for name, value in options.items():
        difference = DIFFERENT.get(server, {}).get(name)
        if difference is not None and difference.applies(value, relayed):
            yield OptionProblem(name, difference.message)
