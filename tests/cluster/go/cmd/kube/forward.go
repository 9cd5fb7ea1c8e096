package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"
)

// forward copies every TCP connection on one address to another one.
// It lets pods reach an API server that listens on loopback only: kube-apiserver takes a single bind address.
func forward() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: kube forward LISTEN_ADDRESS TARGET_ADDRESS")
		os.Exit(2)
	}
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go relay(client.(*net.TCPConn), os.Args[2])
	}
}

// relay joins one accepted connection to the target until both directions are closed.
func relay(client *net.TCPConn, target string) {
	defer client.Close()
	connection, err := net.Dial("tcp", target)
	if err != nil {
		log.Printf("target %s: %v", target, err)
		return
	}
	server := connection.(*net.TCPConn)
	defer server.Close()
	done := make(chan struct{}, 2)
	pipe := func(to, from *net.TCPConn) {
		_, _ = io.Copy(to, from)
		_ = to.CloseWrite() // Half-close: the other direction may still have an answer under way.
		done <- struct{}{}
	}
	go pipe(server, client)
	go pipe(client, server)
	<-done
	<-done
}
