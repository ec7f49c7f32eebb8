package slipswitch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coder/websocket"
	"github.com/slipswitch/slipswitch"
)

// A gateway inside of one's own server: what has no route is the server's own.
func ExampleProxy() {
	workspace := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "workspace 7 answers %s for %s", r.URL.Path, r.Header.Get("X-User"))
	}))
	defer workspace.Close()

	var router slipswitch.Router // the zero value is an empty router
	proxy := &slipswitch.Proxy{
		Router: &router,
		Middleware: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				match, _ := slipswitch.MatchFrom(r.Context())
				owner, _ := match.Label("owner")
				r.Header.Set("X-User", owner)
				next.ServeHTTP(w, r)
			})
		},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "the platform's own page") })
	server := httptest.NewServer(proxy.Handler(mux)) // outermost, since a ServeMux rewrites paths
	defer server.Close()

	get := func(path string) {
		response, err := http.Get(server.URL + path)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		fmt.Println(string(body))
	}
	get("/webapp-01/ide-7/editor")
	_, err := router.Update(func(tx *slipswitch.Txn) error { // all or nothing, one swap
		tx.Put(slipswitch.Route{
			Path: "/webapp-01/ide-7", StripPath: true,
			Upstreams:   slipswitch.To(workspace.URL),
			IdleTimeout: 2 * time.Minute,
			Labels:      map[string]string{"owner": "ada"},
		})
		tx.Delete(slipswitch.Key{Path: "/webapp-01/ide-6"})
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	get("/webapp-01/ide-7/editor")
	// Output:
	// the platform's own page
	// workspace 7 answers /editor for ada
}

// A socket outlives its route, and when it ends one learns who ended it.
func ExampleCloseReport() {
	workspace := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		socket, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		socket.Read(r.Context())
		socket.Close(websocket.StatusGoingAway, "the kernel has died")
	}))
	defer workspace.Close()

	var router slipswitch.Router
	route := slipswitch.Route{Path: "/ide-7", StripPath: true, Upstreams: slipswitch.To(workspace.URL)}
	router.Apply(nil, slipswitch.Change{Put: &route})
	reports := make(chan slipswitch.CloseReport, 1)
	server := httptest.NewServer(&slipswitch.Proxy{
		Router:       &router,
		TunnelValue:  func(r *http.Request) any { return "ada" },
		TunnelClosed: func(report slipswitch.CloseReport) { reports <- report },
	})
	defer server.Close()

	ctx := context.Background()
	socket, _, err := websocket.Dial(ctx, server.URL+"/ide-7/", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer socket.CloseNow()
	router.Apply(nil, slipswitch.Change{Delete: new(route.Key())})
	socket.Write(ctx, websocket.MessageText, []byte("still here"))
	socket.Read(ctx)
	report := <-reports
	fmt.Println(report.Value, "on", report.Route, "closed by", string(report.By)+":", report.How)
	fmt.Println(report.ClientMessages, "message after", report.CloseVersion-report.OpenVersion, "route change")
	// Output:
	// ada on /ide-7 closed by upstream: close frame
	// 1 message after 1 route change
}

// The end of a server's life: plain requests come to their end while tunnels are
// closed. Neither Shutdown waits for the other, so main returns after both: it
// would else cut what is in flight.
func ExampleProxy_Shutdown() {
	proxy := &slipswitch.Proxy{Router: new(slipswitch.Router)}
	server := &http.Server{Addr: "127.0.0.1:0", Handler: proxy}
	go func() {
		if err := server.ListenAndServe(); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	signals <- os.Interrupt // from a terminal, or SIGTERM from a supervisor

	<-signals
	fmt.Println(shutDown(server, proxy))
	// Output: <nil>
}

// shutDown returns when nothing is in flight, or after 30 s.
func shutDown(server *http.Server, proxy *slipswitch.Proxy) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	requests := make(chan error, 1)
	go func() { requests <- server.Shutdown(ctx) }() // no new connections
	tunnels := proxy.Shutdown(ctx)
	return errors.Join(tunnels, <-requests)
}
