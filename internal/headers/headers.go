// Package headers has functions of HTTP fields and cookies that know no route: what
// tokens and values are, which fields are for one connection only, which ones only
// a trusted proxy may set, and how servers read the names of cookies.
//
// Names of fields are expected in their canonical spelling, as in an http.Header.
package headers
