package balance

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"iter"
)

const (
	tagLength = 22 // 16 bytes in base64
	maxTried  = 8  // a header has room for 100,000 cookies, and a set for as many upstreams
)

// Tag returns what a cookie says for an upstream in a scope: a keyed hash, which
// tells nothing and cannot be made without the key.
func Tag(key []byte, scope, upstream string) string {
	h := hmac.New(sha256.New, key)
	fmt.Fprintf(h, "%q %q", scope, upstream)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

// Tagged returns which of n upstreams the first of some values that is a tag names,
// or -1. Only the first eight that could be tags are looked at.
func Tagged(values iter.Seq[string], n int, tag func(i int) string) int {
	var tags []string // made once
	tried := 0
	for value := range values {
		if len(value) != tagLength {
			continue
		}
		if tried++; tried > maxTried {
			break
		}
		for i := range n {
			if len(tags) == i {
				tags = append(tags, tag(i))
			}
			if hmac.Equal([]byte(value), []byte(tags[i])) {
				return i
			}
		}
	}
	return -1
}
