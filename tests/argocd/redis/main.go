// redis is an in-memory server with the part of Redis that Argo CD uses.
//
//	redis HOST:PORT
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// miniredis does not advance its clock by itself. Without ticks, nothing would expire.
const tick = time.Second

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: redis HOST:PORT")
		os.Exit(2)
	}
	server := miniredis.NewMiniRedis()
	if err := server.StartAddr(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "redis:", err)
		os.Exit(1)
	}
	for range time.Tick(tick) {
		server.FastForward(tick)
	}
}
