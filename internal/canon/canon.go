// Package canon brings the hosts and paths of routes and requests into one canonical
// form. Nothing else reads a host or a path, so a request cannot be matched by one
// spelling and forwarded by another. The package knows neither routes nor requests.
//
// A raw path is split at its slashes. Each segment is decoded once, with only / and %
// inside it kept escaped, after dot segments have been resolved:
//
//	raw            /a/%62/x%2Fy/../%41%2541
//	ResolveDots    /a/%62/%41%2541
//	AppendPath     /a/b/A%2541
//
// A host is in lower case, without its port, its brackets and the dot at its end:
//
//	raw            IDE.Example.com.:8443
//	AppendHost     ide.example.com
//
// ScanPath and ScanHost look for what is invalid, and for what there is to do.
// Most paths and hosts are canonical already, and nothing is allocated for them.
package canon
