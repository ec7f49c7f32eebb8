package caddyslipswitch_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestCaddyfile: what stands there is what the JSON says.
func TestCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		"slipswitch": `{"handler":"slipswitch"}`,
		"slipswitch {\n name a\n data /b\n trusted_proxies 10.0.0.1 private_ranges\n}": `{"data":"/b","handler":"slipswitch","name":"a",` +
			`"trusted_proxies":["10.0.0.1","192.168.0.0/16","172.16.0.0/12","10.0.0.0/8","127.0.0.1/8","fd00::/8","::1"]}`,
		"slipswitch {\n route *.example.com/ide-7/a%2Fb https://a.example.com unix:/run/a.sock b:1 {\n strip_path\n idle_timeout 2m\n max_body 5\n protocols a\n sticky `{\"cookie\": \"lb\"}`\n}\n}": `{"handler":"slipswitch","routes":[` +
			`{"host":"*.example.com","path":"/ide-7/a%2Fb","upstreams":["https://a.example.com","unix:/run/a.sock","http://b:1"],` +
			`"stripPath":true,"protocols":["a"],"sticky":{"cookie":"lb"},"maxBody":5,"idleTimeout":"2m0s"}]}`,
	} {
		adapted, err := adapt("http://a {\n" + text + "\n}")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var config struct {
			Apps struct {
				HTTP struct {
					Servers map[string]struct {
						Routes []struct {
							Handle []struct {
								Routes []struct{ Handle []json.RawMessage }
							}
						}
					}
				} `json:"http"`
			}
		}
		if err := json.Unmarshal(adapted, &config); err != nil {
			t.Fatal(err)
		}
		got := config.Apps.HTTP.Servers["srv0"].Routes[0].Handle[0].Routes[0].Handle[0]
		if !equalJSON(t, string(got), want) {
			t.Errorf("%s: got %s; want %s", text, got, want)
		}
	}
}

func equalJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var texts [2]string
	for i, text := range []string{a, b} {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		sorted, _ := json.Marshal(v)
		texts[i] = string(sorted)
	}
	return texts[0] == texts[1]
}

// TestInvalidCaddyfile: the error says where, and what would be right.
func TestInvalidCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		"slipswitch /a b":                                              "wrong argument count",
		"slipswitch {\n routes /a\n}":                                  `unknown option "routes"`,
		"slipswitch {\n route\n}":                                      "wrong argument count",
		"slipswitch {\n route ide-7 a:1\n}":                            `route "ide-7" must be a path`,
		"slipswitch {\n route /a a:1 {\n stripPaths\n}\n}":             "stripPaths",
		"slipswitch {\n route /a a:1 {\n idle_timeout soon\n}\n}":      `must be a duration such as`,
		"slipswitch {\n route /a a:1 {\n strip_path\n stripPath\n}\n}": "twice",
		"slipswitch {\n trusted_proxies\n}":                            "wrong argument count",
		"slipswitch {\n data\n}":                                       "wrong argument count",
		"slipswitch {\n name a b\n}":                                   "wrong argument count",
	} {
		if _, err := adapt("http://a {\n" + text + "\n}"); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Caddyfile:") {
			t.Errorf("%s: got %v; want %s, and the line", text, err, want)
		}
	}
}

// TestExamples: the file beside this one works, and so does what is shown.
func TestExamples(t *testing.T) {
	example, err := os.ReadFile("Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(readme), "```caddyfile\n")
	shown, _, _ = strings.Cut(shown, "```")
	for _, text := range []string{string(example), shown} {
		config, err := adapt(text)
		if err != nil || !strings.Contains(string(config), `"handler":"slipswitch"`) {
			t.Errorf("%s: got %s, %v", text, config, err)
		}
	}
}
