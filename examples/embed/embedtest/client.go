package embedtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// An answer is a complete response.
type answer struct {
	status int
	header http.Header
	body   string
}

func (g *Gateway) ask(method, target string) (answer, error) {
	return g.askWith(context.Background(), method, target)
}

func (g *Gateway) askWith(ctx context.Context, method, target string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	response, err := g.do(ctx, method, target)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(body)}, err
}

// do sends a request over a connection of its own, without changing the target.
func (g *Gateway) do(ctx context.Context, method, target string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+g.Addr, nil)
	if err != nil {
		return nil, err
	}
	r.URL.Opaque = target
	r.Close = true
	return (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
}

// dial connects, within the time of a check.
func (g *Gateway) dial() (net.Conn, error) {
	conn, err := net.Dial("tcp", g.Addr)
	if err == nil {
		conn.SetDeadline(time.Now().Add(wait))
	}
	return conn, err
}

// handshake returns the handshake of RFC 6455 §1.3.
func (g *Gateway) handshake(target string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: " + g.Addr + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
}

// open opens a WebSocket.
func (g *Gateway) open(target string) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	socket, _, err := websocket.Dial(ctx, "ws://"+g.Addr+target, nil)
	return socket, err
}

// echo sends a message and expects it back.
func echo(socket *websocket.Conn, message string) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if err := socket.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
		return err
	}
	if _, got, err := socket.Read(ctx); err != nil || string(got) != message {
		return fmt.Errorf("got %q, %w; want %q back", got, err, message)
	}
	return nil
}
