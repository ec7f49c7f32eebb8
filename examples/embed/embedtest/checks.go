package embedtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch"
)

// A check returns an error if something is wrong.
type check struct {
	name          string
	behindTimeout bool
	check         func(*Gateway, *upstream) error
}

// checks are run by all programs, against the route /ide-7, which is stripped and
// leads to the upstream.
var checks = []check{
	{name: "pages of its own", check: ownPages},
	{name: "sockets outlive changes", check: socketsOutliveChanges},
	{name: "early bytes", check: earlyBytes},
	{name: "paths", check: paths},
	{name: "methods", check: methods},
	{name: "truncated bodies", check: truncatedBodies},
	{name: "empty answers", check: emptyAnswers},
	{name: "interim responses", check: interimResponses},
	{name: "streams", check: streams},
	{name: "behind TimeoutHandler", behindTimeout: true, check: behindTimeout},
}

// ownPages: requests without a route go to the server.
func ownPages(g *Gateway, _ *upstream) error {
	if a, err := g.ask("GET", "/hello"); err != nil || a.status != 200 || a.body != "hello" {
		return fmt.Errorf("got %+v, %v; want hello", a, err)
	}
	return nil
}

// socketsOutliveChanges: also of their own route, and its deletion.
func socketsOutliveChanges(g *Gateway, u *upstream) error {
	socket, err := g.open("/ide-7/echo")
	if err != nil {
		return err
	}
	defer socket.CloseNow()
	own := slipswitch.Route{Path: "/ide-7", Upstreams: slipswitch.To(u.URL), StripPath: true}
	for i := range 50 {
		path := fmt.Sprint("/other-", i/2)
		err := g.update(func(tx *slipswitch.Txn) {
			if i%2 == 0 {
				tx.Put(slipswitch.Route{Path: path, Upstreams: slipswitch.To(u.URL)})
			} else {
				tx.Delete(slipswitch.Key{Path: path})
			}
			own.Meta = fmt.Appendf(nil, "%d", i)
			tx.Put(own)
		})
		if err != nil {
			return err
		}
		if err := echo(socket, path); err != nil {
			return fmt.Errorf("after %d changes: %w", i+1, err)
		}
	}
	if err := g.update(func(tx *slipswitch.Txn) { tx.Delete(slipswitch.Key{Path: "/ide-7"}) }); err != nil {
		return err
	}
	if a, err := g.ask("GET", "/ide-7/"); err != nil || a.status != 404 {
		return fmt.Errorf("got %+v, %v of a route that is gone; want 404", a, err)
	}
	return echo(socket, "gone")
}

// earlyBytes: a frame in the same packet as the handshake.
func earlyBytes(g *Gateway, _ *upstream) error {
	conn, err := g.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	const frame, reply = "\x81\x85\x01\x02\x03\x04dcqhx", "\x81\x05early"
	if _, err := io.WriteString(conn, g.handshake("/ide-7/echo")+frame); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	if response, err := http.ReadResponse(r, nil); err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("got %v, %v; want 101", response, err)
	}
	got := make([]byte, len(reply))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != reply {
		return fmt.Errorf("got %q, %v; want %q", got, err, reply)
	}
	return nil
}

// paths arrive as they were spelt.
func paths(g *Gateway, _ *upstream) error {
	for _, path := range []string{"/a%2Fb", "/a//b", "/a/b//", "/%61", "/a%252Fb", "/a;b=c", "/a+b%20c", "/a?b=c;d&%zz", "/@:!$&'()*,="} {
		if a, err := g.ask("GET", "/ide-7"+path); err != nil || a.body != path {
			return fmt.Errorf("%s: got %+v, %v", path, a, err)
		}
	}
	return nil
}

// methods that are rare pass, too.
func methods(g *Gateway, _ *upstream) error {
	for _, method := range []string{"PUT", "PATCH", "OPTIONS", "PROPFIND", "REPORT", "PURGE", "X-OWN"} {
		if a, err := g.ask(method, "/ide-7/method"); err != nil || a.body != method {
			return fmt.Errorf("%s: got %+v, %v", method, a, err)
		}
	}
	return nil
}

// truncatedBodies must not look complete.
func truncatedBodies(g *Gateway, _ *upstream) error {
	for _, how := range []string{"length", "chunked", "long"} {
		if a, err := g.ask("GET", "/ide-7/truncated/"+how); err == nil {
			return fmt.Errorf("%s: got a whole answer of %d bytes", how, len(a.body))
		}
	}
	return nil
}

// emptyAnswers stay empty.
func emptyAnswers(g *Gateway, _ *upstream) error {
	for _, status := range []int{204, 304, 404, 500} {
		a, err := g.ask("GET", fmt.Sprint("/ide-7/status/", status))
		if err != nil || a.status != status || a.body != "" || a.header.Get("Content-Type") != "" {
			return fmt.Errorf("%d: got %+v, %v", status, a, err)
		}
	}
	return nil
}

// interimResponses pass, and are not taken for the final one.
func interimResponses(g *Gateway, _ *upstream) error {
	var links []string
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			links = append(links, header["Link"]...)
			return nil
		},
	})
	a, err := g.askWith(ctx, "GET", "/ide-7/hints")
	if err != nil || a.status != 418 || len(links) != 1 {
		return fmt.Errorf("got links %q, %+v, %v; want one link, and 418", links, a, err)
	}
	return nil
}

// streams arrive while they last: the upstream sends the second event after the
// first has arrived.
func streams(g *Gateway, u *upstream) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	response, err := g.do(ctx, "GET", "/ide-7/events")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	r := bufio.NewReader(response.Body)
	for i := range 3 {
		line, err := r.ReadString('\n')
		if err != nil || line != fmt.Sprintf("data: %d\n", i) {
			return fmt.Errorf("event %d: got %q, %w", i, line, err)
		}
		u.next <- struct{}{}
	}
	return nil
}

// behindTimeout: under an http.TimeoutHandler an upgrade is refused at once, and
// the upstream is not asked. Flushed responses still arrive, though only
// complete.
func behindTimeout(g *Gateway, u *upstream) error {
	if a, err := g.ask("GET", "/ide-7/flushed"); err != nil || a.status != 200 || a.body != "hello, world" {
		return fmt.Errorf("got %+v, %v; want hello, world", a, err)
	}
	asked := u.asked.Load()
	conn, err := g.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, g.handshake("/ide-7/echo")); err != nil {
		return err
	}
	begin := time.Now()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	switch {
	case err != nil:
		return err
	case response.StatusCode != http.StatusNotImplemented || !strings.HasPrefix(response.Header.Get("Proxy-Status"), "slipswitch;"):
		return fmt.Errorf("got %s %v; want 501", response.Status, response.Header)
	case u.asked.Load() > asked:
		return fmt.Errorf("the upstream was asked")
	case time.Since(begin) > wait/2:
		return fmt.Errorf("the answer took %v", time.Since(begin))
	}
	return nil
}
