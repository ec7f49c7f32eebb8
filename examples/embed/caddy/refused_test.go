package caddyslipswitch_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestEarlyAnswers: a client that is answered while it sends gets the answer.
func TestEarlyAnswers(t *testing.T) {
	deaf := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }))
	defer deaf.Close()
	to := deaf.Listener.Addr().String()
	c := start(t, "slipswitch {\n route /a "+to+" {\n max_body 10\n }\n route /b "+to+"\n}")
	for path, want := range map[string]int{"/a": 413, "/b": 204} {
		for _, size := range []int{11, 300 << 10, 3 << 20} {
			response, err := http.Post("http://"+c.addr+path, "text/plain", bytes.NewReader(make([]byte, size)))
			if err != nil {
				t.Errorf("%s: %d bytes: %v", path, size, err)
				continue
			}
			response.Body.Close()
			if response.StatusCode != want {
				t.Errorf("%s: %d bytes: got %s; want %d", path, size, response.Status, want)
			}
		}
	}
}
