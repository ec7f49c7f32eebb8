package slipswitch_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/slipswitch/slipswitch"
)

// proxyFor returns a Proxy with one route.
func proxyFor(route slipswitch.Route) *slipswitch.Proxy {
	proxy := &slipswitch.Proxy{Router: new(slipswitch.Router)}
	if _, err := proxy.Router.Apply(nil, slipswitch.Change{Put: &route}); err != nil {
		fmt.Println(err)
	}
	return proxy
}

// What an upstream gets and what a client gets can be changed by route.
func ExampleHeaderRules() {
	workspace := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("workspace sees:", r.Header.Get("X-Workspace"), r.Header["X-Debug"])
		w.Header().Set("Server", "ide/1.2.3")
	}))
	defer workspace.Close()
	proxy := proxyFor(slipswitch.Route{
		Path: "/ide-7", Upstreams: slipswitch.To(workspace.URL),
		Headers: slipswitch.Headers{
			Request:  slipswitch.HeaderRules{Remove: []string{"X-Debug"}, Set: map[string]string{"X-Workspace": "7"}},
			Response: slipswitch.HeaderRules{Remove: []string{"Server"}, Add: map[string]string{"Content-Security-Policy": "frame-ancestors 'self'"}},
		},
	})
	defer proxy.Shutdown(context.Background())
	request := httptest.NewRequest("GET", "/ide-7", nil)
	request.Header.Set("X-Debug", "1")
	request.Header.Set("X-Workspace", "8")
	recorder := httptest.NewRecorder()
	proxy.ServeHTTP(recorder, request)
	fmt.Println(recorder.Header()["Server"], recorder.Header().Get("Content-Security-Policy"))
	// Output:
	// workspace sees: 7 []
	// [] frame-ancestors 'self'
}

// A page of another host gets no socket, even if the browser sends the user's
// cookies along.
func ExampleRoute_sameOrigin() {
	proxy := proxyFor(slipswitch.Route{Path: "/ide-7", SameOrigin: true, Upstreams: slipswitch.To("http://10.0.0.7:8080")})
	server := httptest.NewServer(proxy)
	defer server.Close()
	request, _ := http.NewRequest("GET", server.URL+"/ide-7", nil)
	request.Header = http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
		"Origin": {"https://evil.example"},
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		fmt.Println(err)
		return
	}
	response.Body.Close()
	fmt.Println(response.Status)
	// Output: 403 Forbidden
}

// What speaks HTTP/2 without TLS, as gRPC servers inside of a cluster do, is
// spoken to so, with trailers.
func ExampleUpstream_h2c() {
	upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		fmt.Fprintln(w, r.Proto)
		w.Header().Set("Grpc-Status", "0")
	}))
	upstream.Config.Protocols = new(http.Protocols)
	upstream.Config.Protocols.SetUnencryptedHTTP2(true)
	upstream.Start()
	defer upstream.Close()
	proxy := proxyFor(slipswitch.Route{Path: "/", Upstreams: slipswitch.To("h2c://" + upstream.Listener.Addr().String())})
	defer proxy.Shutdown(context.Background())
	recorder := httptest.NewRecorder()
	proxy.ServeHTTP(recorder, httptest.NewRequest("POST", "/echo.Echo/Say", nil))
	fmt.Print(recorder.Body)
	fmt.Println(recorder.Result().Trailer)
	// Output:
	// HTTP/2.0
	// map[Grpc-Status:[0]]
}

// A program on the same machine is reached by a Unix socket.
func ExampleUpstream_unix() {
	directory, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(directory)
	socket := filepath.Join(directory, "ide.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Println(err)
		return
	}
	upstream := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "over a socket: ", r.URL.Path)
	})}
	go upstream.Serve(listener)
	defer upstream.Close()
	proxy := proxyFor(slipswitch.Route{Path: "/ide-7", StripPath: true, Upstreams: slipswitch.To("unix:" + socket)})
	defer proxy.Shutdown(context.Background())
	recorder := httptest.NewRecorder()
	proxy.ServeHTTP(recorder, httptest.NewRequest("GET", "/ide-7/editor", nil))
	fmt.Println(recorder.Body)
	// Output: over a socket: /editor
}

// Upstreams with certificates of one's own authority: the routes name a profile,
// which the Proxy has. Client certificates go there, too.
func ExampleProxy_tlsProfiles() {
	upstream := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "for ", r.TLS.ServerName)
	}))
	defer upstream.Close()
	authority := x509.NewCertPool()
	authority.AddCert(upstream.Certificate())
	proxy := &slipswitch.Proxy{
		Router: new(slipswitch.Router),
		TLSProfiles: map[string]*tls.Config{
			"internal": {RootCAs: authority, ServerName: "example.com"},
		},
	}
	defer proxy.Shutdown(context.Background())
	proxy.Router.Apply(nil,
		slipswitch.Change{Put: &slipswitch.Route{Path: "/ide-7", TLSProfile: "internal", Upstreams: slipswitch.To(upstream.URL)}},
		slipswitch.Change{Put: &slipswitch.Route{Path: "/ide-8", TLSProfile: "internal", Upstreams: slipswitch.To(upstream.URL)}},
	)
	recorder := httptest.NewRecorder()
	proxy.ServeHTTP(recorder, httptest.NewRequest("GET", "/ide-7", nil))
	fmt.Println(recorder.Body)
	// Output: for example.com
}

// One workspace whose network drops all packets must not take the descriptors,
// and the patience, of all others.
func ExampleLimits() {
	dialling := make(chan struct{})
	proxy := &slipswitch.Proxy{
		Router: new(slipswitch.Router),
		Limits: slipswitch.Limits{
			DialsPerRoute: 1, Dials: 1000, // connections to upstreams that are being opened
			HandshakesPerRoute: 100, Handshakes: 1000, // upgrades that wait for their answer
			TunnelsPerRoute: 1000,
		},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			close(dialling)
			<-ctx.Done() // nobody answers
			return nil, ctx.Err()
		},
	}
	defer proxy.Shutdown(context.Background())
	proxy.Router.Apply(nil, slipswitch.Change{Put: &slipswitch.Route{Path: "/ide-7", Upstreams: slipswitch.To("http://10.0.0.7:8080")}})
	ctx, leave := context.WithCancel(context.Background())
	first := make(chan struct{})
	go func() {
		defer close(first)
		defer func() { recover() }() // as http.Server does when a client has left
		proxy.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/ide-7", nil).WithContext(ctx))
	}()
	<-dialling
	second := httptest.NewRecorder()
	proxy.ServeHTTP(second, httptest.NewRequest("GET", "/ide-7", nil))
	fmt.Println(second.Code, "Retry-After:", second.Header().Get("Retry-After"))
	leave()
	<-first
	// Output: 503 Retry-After: 1
}

// Which routes lead to a machine that is to be taken away, and when were they
// last used?
func ExampleEntry_Upstreams() {
	var router slipswitch.Router
	router.Update(func(tx *slipswitch.Txn) error {
		tx.Put(slipswitch.Route{Path: "/ide-6", Upstreams: slipswitch.To("http://10.0.0.6:8080")})
		tx.Put(slipswitch.Route{Path: "/ide-7", Upstreams: slipswitch.To("http://10.0.0.6:8080", "http://10.0.0.7/base")})
		return nil
	})
	for entry := range router.Table().All() {
		if slices.Contains(entry.Upstreams(), "http://10.0.0.7:80") {
			fmt.Println(entry.Key().Path, time.Since(entry.LastActive()) < time.Minute)
		}
	}
	// Output: /ide-7 true
}
