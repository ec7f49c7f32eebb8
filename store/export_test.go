package store

var Coalesce = coalesce
