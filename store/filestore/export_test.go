package filestore

var Parse = parse
