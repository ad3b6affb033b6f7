# shellcheck shell=bash
# GET requests to loopback in plain bash, because curl may not be installed.

# http_get PORT PATH: prints status line, headers, an empty line and the body. HTTP/1.0 avoids chunked responses.
http_get() {
    exec 8<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n\r\n' "$2" >&8
    cat <&8
    exec 8>&-
}

# http_body PORT PATH: prints the body.
http_body() { http_get "$1" "$2" | sed '1,/^\r$/d'; }

# answers_200 PORT PATH: succeeds if the status is 200.
answers_200() {
    local line
    line=$(http_get "$1" "$2" 2>/dev/null | head -n 1)
    [[ $line == HTTP/1.?" 200"* ]]
}
