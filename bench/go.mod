module github.com/slipswitch/slipswitch/bench

go 1.26.0

require github.com/slipswitch/slipswitch v0.0.0

replace github.com/slipswitch/slipswitch => ../
