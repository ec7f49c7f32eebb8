package main_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/slipswitch/slipswitch"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// echoService answers each message with itself, and at the end tells the count
// in a trailer and fails: a status is a trailer, too.
var echoService = grpc.ServiceDesc{
	ServiceName: "echo.Echo",
	Streams: []grpc.StreamDesc{{
		StreamName: "Both", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			for n := 0; ; n++ {
				message := new(wrapperspb.StringValue)
				if err := stream.RecvMsg(message); errors.Is(err, io.EOF) {
					stream.SetTrailer(metadata.Pairs("count", fmt.Sprint(n)))
					return status.Error(codes.DataLoss, "the end")
				} else if err != nil {
					return err
				}
				if err := stream.SendMsg(message); err != nil {
					return err
				}
			}
		},
	}},
}

// gRPC passes both ways at once, with its trailers, over HTTP/2 without TLS on
// both sides of the Proxy.
func TestGRPC(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	server.RegisterService(&echoService, nil)
	go server.Serve(listener)
	defer server.Stop()

	router := new(slipswitch.Router)
	proxy := &slipswitch.Proxy{Router: router}
	if _, err := router.Apply(nil, slipswitch.Change{Put: &slipswitch.Route{Path: "/echo.Echo", Upstreams: slipswitch.To("h2c://" + listener.Addr().String())}}); err != nil {
		t.Fatal(err)
	}
	public := serveH2C(t, proxy)
	conn, err := grpc.NewClient("passthrough:///"+public, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := conn.NewStream(ctx, &echoService.Streams[0], "/echo.Echo/Both")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		want := fmt.Sprint("message ", i)
		got := new(wrapperspb.StringValue)
		if err := stream.SendMsg(wrapperspb.String(want)); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(got); err != nil || got.Value != want {
			t.Fatalf("got %q, %v; want %q", got.Value, err, want)
		}
	}
	stream.CloseSend()
	err = stream.RecvMsg(new(wrapperspb.StringValue))
	if s := status.Convert(err); s.Code() != codes.DataLoss || s.Message() != "the end" {
		t.Errorf("got %v; want the server's status", err)
	}
	if got := stream.Trailer().Get("count"); len(got) != 1 || got[0] != "10" {
		t.Errorf("got the trailer %q; want 10", got)
	}
}

// serveH2C serves the proxy by HTTP/2 without TLS.
func serveH2C(t *testing.T, proxy *slipswitch.Proxy) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: proxy, Protocols: new(http.Protocols)}
	server.Protocols.SetUnencryptedHTTP2(true)
	go server.Serve(listener)
	t.Cleanup(func() {
		server.Close()
		proxy.Shutdown(context.Background())
	})
	return listener.Addr().String()
}
