package gateways

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// An api is a peer's HTTP API, asked for one thing after the other over one
// connection, as long as the peer keeps it. As the load generator does, it
// speaks HTTP itself: net/http's client hands a call from goroutine to goroutine,
// which takes longer than some peers take to answer it.
type api struct {
	addr string
	conn net.Conn
	in   *bufio.Reader
}

const token = "a-token"

// newAPI returns the way to a gateway's API, until the gateway is stopped.
func newAPI(g *gateway, addr string) *api {
	a := &api{addr: addr}
	kill := g.stop
	g.stop = func() { kill(); a.close() }
	return a
}

func (a *api) close() {
	if a.conn != nil {
		a.conn.Close()
		a.conn = nil
	}
}

// call sends a body of JSON, or none, and wants a 2xx. A connection that the peer
// has meanwhile closed is made again, once: all calls may be made twice.
func (a *api) call(ctx context.Context, method, path, body string) error {
	request := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		method, path, a.addr, token, len(body), body)
	kept := a.conn != nil
	status, answer, err := a.try(ctx, request)
	if err != nil && kept && ctx.Err() == nil {
		status, answer, err = a.try(ctx, request)
	}
	if err == nil && status >= 300 {
		err = fmt.Errorf("%s %s: %d: %.300s", method, path, status, answer)
	}
	return err
}

func (a *api) try(ctx context.Context, request string) (status int, answer []byte, err error) {
	if a.conn == nil {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", a.addr)
		if err != nil {
			return 0, nil, err
		}
		a.conn, a.in = conn, bufio.NewReader(conn)
	}
	keep := false
	defer func() {
		if !keep {
			a.close()
		}
	}()
	conn := a.conn
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := io.WriteString(conn, request); err != nil {
		return 0, nil, err
	}
	response, err := http.ReadResponse(a.in, nil)
	if err != nil {
		return 0, nil, err
	}
	if answer, err = io.ReadAll(response.Body); err != nil {
		return 0, nil, err
	}
	keep = !response.Close
	return response.StatusCode, answer, nil
}
