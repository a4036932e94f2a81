package world

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync"
)

// Ports are taken from below those that Linux gives to outgoing connections (32768 and up, ip(7)): while a node is down, no client's
// connection may take its port, or the node could not come back.
const (
	portMin = 12000
	portMax = 31999
)

// given are the ports that were given out, whether somebody listens there yet or not.
var given sync.Map

// freePort is a port of 127.0.0.1 that nobody listens on, and that was not given out before.
func freePort() (int, error) {
	for range 100 {
		port := portMin + rand.IntN(portMax-portMin+1)
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		listener, err := net.Listen("tcp", loopback(port))
		if err != nil {
			continue
		}
		return port, listener.Close()
	}
	return 0, errors.New("no free port was found")
}
