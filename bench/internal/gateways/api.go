package gateways

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

const token = "a-token"

// newAPI returns the way to a gateway's HTTP API, until the gateway is stopped.
// It is asked for one thing after the other by the load generator's client:
// net/http's hands a call from goroutine to goroutine, which takes longer than
// some peers take to answer it.
func newAPI(g *gateway, addr string) *client {
	c := &client{addr: addr}
	kill := g.stop
	g.stop = func() { kill(); c.close() }
	return c
}

// call sends a body of JSON, or none, and wants a 2xx. It may be sent twice.
func (c *client) call(ctx context.Context, method, path, body string) error {
	if end, ok := ctx.Deadline(); ok && c.conn != nil {
		c.conn.SetDeadline(end) // it has that of the call before
	}
	request := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		method, path, c.addr, token, len(body), body)
	var response *http.Response
	var answer []byte
	err := c.do(ctx, request, func() (last bool, err error) {
		if response, err = http.ReadResponse(c.in, nil); err != nil {
			return true, err
		}
		answer, err = io.ReadAll(response.Body)
		return response.Close, err
	})
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %d: %.300s", method, path, response.StatusCode, answer)
	}
	return err
}
