// Package headers has functions of HTTP fields and cookies that know no route:
// the syntax of tokens and values, the fields that concern one connection only,
// the fields that only a trusted proxy may set, and how servers read the names of
// cookies.
//
// Names of fields must be in canonical form, as in an http.Header.
package headers
