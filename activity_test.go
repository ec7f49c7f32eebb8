package slipswitch_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch"
)

// TestActivityPolicy does each thing that can be activity under each policy of
// one thing, under the default, and under a policy of all.
func TestActivityPolicy(t *testing.T) {
	t.Parallel()
	const all = ^slipswitch.ActivityKinds(0)
	defaults := all &^ (slipswitch.ActivityClientBytes | slipswitch.ActivityUpstreamBytes)
	policies := []slipswitch.ActivityKinds{0, all}
	for policy := slipswitch.ActivityRequests; policy <= slipswitch.ActivityUpstreamBytes && policy != 0; policy <<= 1 {
		policies = append(policies, policy)
	}
	for _, policy := range policies {
		t.Run(fmt.Sprint(policy), func(t *testing.T) {
			t.Parallel()
			testActivityPolicy(t, policy, policy|map[bool]slipswitch.ActivityKinds{true: defaults}[policy == 0])
		})
	}
}

func testActivityPolicy(t *testing.T, policy, counted slipswitch.ActivityKinds) {
	u, parts, status := tunneling(t), make(chan string), http.StatusOK
	download := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first := make([]byte, 1)
		if r.ContentLength != 0 {
			io.ReadFull(r.Body, first)
			parts <- string(first)
			io.Copy(io.Discard, r.Body)
		}
		w.WriteHeader(status)
		http.NewResponseController(w).Flush()
		for part := range parts {
			io.WriteString(w, part)
			http.NewResponseController(w).Flush()
		}
	}))
	defer download.Close()
	g := startGateway(t, &slipswitch.Proxy{ActivityKinds: policy}, route("/ws", u),
		slipswitch.Route{Path: "/http", Upstreams: slipswitch.To(download.URL)})
	moves := func(path, what string, as slipswitch.ActivityKinds, do func()) {
		t.Helper()
		entry, _ := g.Router.Table().At(slipswitch.Key{Host: host, Path: path})
		was := entry.LastActive()
		do()
		if as&counted != 0 {
			until(t, what+" is activity", func() bool { return entry.LastActive().After(was) })
		} else if !entry.LastActive().Equal(was) {
			t.Errorf("%s is activity", what)
		}
	}

	var client, far *peer
	moves("/ws", "a handshake", slipswitch.ActivityRequests, func() { client, far = g.open("/ws", u) })
	g.tunnels(1)
	pass := func(from, to *peer, frame string) func() {
		return func() {
			var before, now int64
			for tunnel := range g.Tunnels() {
				before = tunnel.Traffic().ClientBytes + tunnel.Traffic().UpstreamBytes
			}
			from.send(frame)
			to.expect(frame)
			until(t, "the tunnel has counted it", func() bool {
				for tunnel := range g.Tunnels() {
					now = tunnel.Traffic().ClientBytes + tunnel.Traffic().UpstreamBytes
				}
				return now == before+int64(len(frame))
			})
		}
	}
	moves("/ws", "a client's ping", slipswitch.ActivityClientBytes, pass(client, far, clientPing))
	moves("/ws", "a client's message", slipswitch.ActivityClientBytes|slipswitch.ActivityClientMessages, pass(client, far, clientText))
	moves("/ws", "an upstream's pong", slipswitch.ActivityUpstreamBytes, pass(far, client, serverPong))
	moves("/ws", "an upstream's message", slipswitch.ActivityUpstreamBytes|slipswitch.ActivityUpstreamMessages, pass(far, client, serverText))
	moves("/ws", "the end", 0, func() {
		far.Close()
		client.expectEOF()
		client.Close()
		g.report()
	})

	client = g.dial()
	moves("/http", "a request", slipswitch.ActivityRequests|slipswitch.ActivityUploads, func() {
		client.send(request("POST", "/http", "Content-Length: 2") + "a")
		client.t.Helper()
		<-parts
	})
	moves("/http", "the rest of an upload", slipswitch.ActivityUploads, func() {
		client.send("b")
		client.expect("HTTP/1.1 200 OK\r\n")
	})
	moves("/http", "a part of a download", slipswitch.ActivityDownloads, func() {
		parts <- "part"
		for line := ""; !strings.HasPrefix(line, "part"); line, _ = client.r.ReadString('\n') {
			client.SetReadDeadline(time.Now().Add(wait))
			if _, err := client.r.Peek(1); err != nil {
				t.Fatal(err)
			}
		}
	})
	client.Close()
	close(parts)

	status, parts = http.StatusForbidden, make(chan string)
	client = g.dial()
	moves("/http", "the request", slipswitch.ActivityRequests, func() {
		client.send(request("GET", "/http"))
		client.expect("HTTP/1.1 403 Forbidden\r\n")
	})
	moves("/http", "a part of a refusal", 0, func() {
		parts <- "part"
		for line := ""; !strings.HasPrefix(line, "part"); line, _ = client.r.ReadString('\n') {
			client.SetReadDeadline(time.Now().Add(wait))
			if _, err := client.r.Peek(1); err != nil {
				t.Fatal(err)
			}
		}
	})
	client.Close()
	close(parts)
}

// What workspaces push by themselves keeps none of them awake: only what people
// do counts, and a request alone, which may be a page's own, does not.
func ExampleActivityKinds() {
	proxy := &slipswitch.Proxy{
		Router:        new(slipswitch.Router),
		ActivityKinds: slipswitch.ActivityUploads | slipswitch.ActivityClientMessages,
	}
	fmt.Println(proxy.ActivityKinds&slipswitch.ActivityUpstreamMessages != 0)
	// Output: false
}

// TestActivityOfAClockAhead: what a clock has noted that was ahead ages from when
// it is looked at.
func TestActivityOfAClockAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var router slipswitch.Router
		key := slipswitch.Key{Path: "/a"}
		if _, err := router.Update(func(tx *slipswitch.Txn) error {
			tx.Put(slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://10.0.0.7:8080")})
			tx.Use(key, time.Now().Add(24*time.Hour))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		entry, _ := router.Table().At(key)
		begin := time.Now()
		if got := entry.LastActive(); !got.Equal(begin) {
			t.Errorf("got %v; want now, %v", got, begin)
		}
		time.Sleep(time.Hour)
		if got := entry.LastActive(); !got.Equal(begin) {
			t.Errorf("an hour later: got %v; want %v", got, begin)
		}
		time.Sleep(time.Hour)
		entry.Use()
		if got := entry.LastActive(); !got.Equal(time.Now()) {
			t.Errorf("used: got %v; want %v", got, time.Now())
		}
	})
}
