// Package canon brings the hosts and paths of routes and requests into one
// canonical form. No other package parses a host or a path, so a request cannot
// be matched by one spelling and forwarded by another. The package knows neither
// routes nor requests.
//
// A raw path is split at its slashes and dot segments are resolved. Then each
// segment is decoded once, except that / and % inside it stay escaped:
//
//	raw            /a/%62/x%2Fy/../%41%2541
//	ResolveDots    /a/%62/%41%2541
//	AppendPath     /a/b/A%2541
//
// A host is in lower case, without its port, its brackets and a dot at its end:
//
//	raw            IDE.Example.com.:8443
//	AppendHost     ide.example.com
//
// ScanPath and ScanHost report what is invalid, and what there is to change. Most
// paths and hosts are canonical already, and cost no allocation.
package canon
