"""Names of uvicorn and httptools that this room uses, which neither promises to keep.

So pyproject.toml pins both to the minor versions that the tests ran with, and a test looks up every
name, of a class in an instance.
"""

_IMPL = "uvicorn.protocols.http.httptools_impl"

# Module or class -> its names, separated by spaces.
NAMES = {
    _IMPL: "STATUS_LINE",
    f"{_IMPL}.HttpToolsProtocol": (
        "_start_asgi_task access_log access_logger app client connection_lost connection_made"
        " connections cycle data_received expect_100_continue flow headers limit_concurrency"
        " logger loop on_body on_header on_headers_complete on_message_begin on_message_complete"
        " on_response_complete on_url parser pause_writing pipeline resume_writing root_path scope"
        " server_state shutdown tasks timeout_keep_alive transport url ws_protocol_class"
    ),
    f"{_IMPL}.RequestResponseCycle": (
        "access_log access_logger body chunked_encoding default_headers disconnected"
        " expected_content_length flow keep_alive logger message_event more_body receive"
        " response_complete response_started run_asgi scope send transport"
        " waiting_for_100_continue"
    ),
    "uvicorn.protocols.http.flow_control.FlowControl": (
        "pause_reading pause_writing read_paused resume_reading resume_writing"
    ),
    "uvicorn.server.ServerState": "connections default_headers tasks total_requests",
    "uvicorn.config": "Config",
    "uvicorn._types": "ASGI3Application",
    "httptools": "HttpParserCallbackError HttpParserError HttpParserUpgrade parse_url",
    "httptools.HttpRequestParser": (
        "feed_data get_http_version get_method set_dangerous_leniencies should_keep_alive"
        " should_upgrade"
    ),
}
