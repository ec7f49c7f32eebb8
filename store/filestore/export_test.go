package filestore

var Parse = parse

var Lock = lock
