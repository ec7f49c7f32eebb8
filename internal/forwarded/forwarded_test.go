package forwarded_test

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch/internal/forwarded"
)

func TestParseNode(t *testing.T) {
	for text, want := range map[string]string{
		"203.0.113.7": "203.0.113.7", " 203.0.113.7:51008\t": "203.0.113.7", "203.0.113.7:_p": "203.0.113.7", "203.0.113.7:": "203.0.113.7",
		"[2001:DB8::1]": "2001:db8::1", "[2001:db8::1]:51008": "2001:db8::1", "2001:db8::1": "2001:db8::1", "::ffff:203.0.113.7": "203.0.113.7",
		"_gazonk": "_gazonk", "_SEVKISEK:_9": "_SEVKISEK", "_" + strings.Repeat("a", 63): "_" + strings.Repeat("a", 63),
		"": "unknown", "unknown": "unknown", "unknown:80": "unknown", "Unknown": "unknown", "_": "unknown", "_a b": "unknown", "_a,b": "unknown",
		"_" + strings.Repeat("a", 64): "unknown", "[203.0.113.7]": "unknown", "[::1": "unknown", "::1]": "unknown", "[::1]80": "unknown", "[::1]:8 0": "unknown",
		"fe80::1%eth0": "unknown", "[fe80::1%eth0]:80": "unknown", "203.0.113": "unknown", "203.0.113.07": "unknown", "ide.example.com": "unknown", "203.0.113.7:80:81": "unknown",
	} {
		if got := forwarded.ParseNode(text).String(); got != want {
			t.Errorf("%q: got %s; want %s", text, got, want)
		}
	}
}

// TestParse has the examples of RFC 7239 §4 and what is not well-formed.
func TestParse(t *testing.T) {
	type elements = []forwarded.Element
	for _, test := range []struct {
		value string
		want  elements
		whole bool
	}{
		{`for="_gazonk"`, elements{{For: "_gazonk"}}, true},
		{`For="[2001:db8:cafe::17]:4711"`, elements{{For: "[2001:db8:cafe::17]:4711"}}, true},
		{`for=192.0.2.60;proto=http;by=203.0.113.43`, elements{{For: "192.0.2.60", Proto: "http"}}, true},
		{`for=192.0.2.43, for=198.51.100.17`, elements{{For: "192.0.2.43"}, {For: "198.51.100.17"}}, true},
		{`for=192.0.2.43,for="[2001:db8:cafe::17]",for=unknown`, elements{{For: "192.0.2.43"}, {For: "[2001:db8:cafe::17]"}, {For: "unknown"}}, true},
		{`for=_hidden, for=_SEVKISEK`, elements{{For: "_hidden"}, {For: "_SEVKISEK"}}, true},
		{`host="a\"b,c;d";secret="x,y=z"`, elements{{Host: `a"b,c;d`}}, true},
		{` ;for=a ; ; HOST = b:80; , ,, proto="https" `, elements{{For: "a", Host: "b:80"}, {Proto: "https"}}, true},
		{`by=x`, nil, true},
		{``, nil, true},
		{`for=a;for=b, for=c`, elements{{For: "c"}}, false},
		{`for="a, for=c`, elements{{For: "c"}}, false},
		{`for="a, for="[::1]:80";proto=https`, elements{{For: "[::1]:80", Proto: "https"}}, false},
		{`for="a\", for=c`, elements{{For: "c"}}, false},
		{`for="a"b, for=c`, elements{{For: "c"}}, false},
		{`for=a"b", for=c`, elements{{For: "c"}}, false},
		{`for=a b, for=c`, elements{{For: "c"}}, false},
		{`for, for=c`, elements{{For: "c"}}, false},
		{`for=;proto=http, for=c`, elements{{For: "c"}}, false},
		{`for=a, for="c`, nil, false},
	} {
		got, whole := forwarded.Parse(test.value)
		if !slices.Equal(got, test.want) || whole != test.whole {
			t.Errorf("%s: got %+v, %v; want %+v, %v", test.value, got, whole, test.want, test.whole)
		}
	}
}

var private = netip.MustParsePrefix("10.0.0.0/8")

// FuzzRead: what is read is what the trusted nodes wrote. It does not depend on
// what stands left of it, and what is written of it is read back as the same.
func FuzzRead(f *testing.F) {
	f.Add("203.0.113.7:80, 10.0.0.2", "https,http", "pub, mid", "443,80", `for="[2001:db8::1]:80";host="a:1";proto=https, for=10.1.1.1`)
	f.Add("", "", "", "", `for="evil, for="[2001:db8::1]"`)
	f.Add("", "", "", "", `for=_x;proto=WSS;host=a.example.com,for=10.0.0.1;by=_y, for=10.0.0.2`)
	f.Add("unknown,", ",", " ,", "80x", `for=a;for=b`)
	f.Fuzz(func(t *testing.T, chain, proto, host, port, field string) {
		header := http.Header{}
		for name, value := range map[string]string{"X-Forwarded-For": chain, "X-Forwarded-Proto": proto, "X-Forwarded-Host": host, "X-Forwarded-Port": port, "Forwarded": field} {
			if value != "" {
				header[name] = []string{value}
			}
		}
		said := forwarded.Read(header, private.Contains)
		for i, node := range said.Nodes {
			if trusted := private.Contains(node.Addr); i > 0 && !trusted || node == (forwarded.Node{}) || len(node.ID) > 64 {
				t.Errorf("%v: got %v", header, said)
			}
		}
		if said.Proto != "" && said.Proto != "http" && said.Proto != "https" || strings.ContainsAny(said.Host, ",") && chain+proto+host != "" {
			t.Errorf("%v: got %+v", header, said)
		}

		// What its client says before a proxy appends.
		if chain+proto+host == "" && len(said.Nodes) > 0 && !private.Contains(said.Nodes[0].Addr) {
			for _, before := range []string{"for=6.6.6.6, ", `for="x, `, "for=6.6.6.6;proto=https;host=evil.com,", `"`} {
				header["Forwarded"] = []string{before, field}
				if got := forwarded.Read(header, private.Contains); !same(got, said) {
					t.Errorf("after %s: got %+v; want %+v", before, got, said)
				}
			}
			if elements, whole := forwarded.Parse(field); whole && len(elements) == 1 {
				header["Forwarded"] = []string{`for="x, ` + field}
				if got := forwarded.Read(header, private.Contains); strings.Count(field, ",") == 0 && !same(got, said) {
					t.Errorf("behind an open quote: %s: got %+v; want %+v", field, got, said)
				}
			}
		}

		if len(said.Nodes) == 0 || strings.ContainsAny(said.Host, "\"\\") {
			return
		}
		said.Port = ""
		if said.Proto == "" {
			said.Proto = "http"
		}
		if strings.Trim(said.Host, "abcdefghijklmnopqrstuvwxyz0123456789.-:") != "" {
			said.Host = ""
		}
		written := string(forwarded.Append(nil, said.Nodes, said.Host, said.Proto))
		if got := forwarded.Read(http.Header{"Forwarded": {written}}, private.Contains); !same(got, said) {
			t.Errorf("%s: got %+v; want %+v", written, got, said)
		}
	})
}

func same(a, b forwarded.Said) bool {
	return slices.Equal(a.Nodes, b.Nodes) && a.Proto == b.Proto && a.Host == b.Host && a.Port == b.Port
}
