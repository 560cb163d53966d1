package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-semver/semver"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// timeout ends whatever etcd does not finish.
const timeout = 30 * time.Second

// noCluster is what a lessor asks for the cluster's version.
type noCluster struct{}

func (noCluster) Version() *semver.Version { return nil }

// freePort asks the kernel for a port that nobody has.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

func loopback(port string) url.URL { return url.URL{Scheme: "http", Host: "127.0.0.1:" + port} }

// config is etcd without its logs, with fast elections and without fsync: nobody cuts the power here.
func config(name, dir, peerPort string) (*embed.Config, error) {
	clientPort, err := freePort()
	if err != nil {
		return nil, err
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = name, dir
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{loopback(peerPort)}, []url.URL{loopback(peerPort)}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{loopback(clientPort)}, []url.URL{loopback(clientPort)}
	cfg.InitialCluster = cfg.InitialClusterFromName(name)
	cfg.UnsafeNoFsync = true
	cfg.TickMs, cfg.ElectionMs = 50, 500
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	if os.Getenv("ETCD_JUDGE_LOG") != "" {
		cfg.ZapLoggerBuilder = nil
		cfg.LogLevel = "info"
	}
	return cfg, nil
}

func ready(e *embed.Etcd) error {
	select {
	case <-e.Server.ReadyNotify():
		return nil
	case err := <-e.Err():
		return err
	case <-time.After(timeout):
		return errors.New("etcd is not ready")
	}
}

// parse reads NAME=DIR=PEERPORT; without a port any free one is taken.
func parse(arg string) (*embed.Config, error) {
	w := strings.Split(arg, "=")
	if len(w) != 3 {
		return nil, fmt.Errorf("%q is not NAME=DIR=PEERPORT", arg)
	}
	if w[2] == "" {
		var err error
		if w[2], err = freePort(); err != nil {
			return nil, err
		}
	}
	return config(w[0], w[1], w[2])
}

// hold runs one member until stdin ends.
func hold(arg string) error {
	cfg, err := parse(arg)
	if err != nil {
		return err
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	defer e.Close()
	if err := ready(e); err != nil {
		return err
	}
	fmt.Println("serving")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// serve starts members on directories that exist, and asks one of them.
func serve(args []string) (*Served, error) {
	force := args[0] == "-force-new-cluster"
	if force {
		args = args[1:]
	}
	type started struct {
		e   *embed.Etcd
		err error
	}
	all := make(chan started, len(args))
	for _, a := range args {
		cfg, err := parse(a)
		if err != nil {
			return nil, err
		}
		cfg.ForceNewCluster = force
		go func() {
			e, err := embed.StartEtcd(cfg)
			if err == nil {
				err = ready(e)
			}
			all <- started{e, err}
		}()
	}
	var endpoints []string
	var errs []error
	for range args {
		s := <-all
		if s.e != nil {
			defer s.e.Close()
			endpoints = append(endpoints, s.e.Clients[0].Addr().String())
		}
		errs = append(errs, s.err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return ask(endpoints[:1])
}

// ask reads everything through the client API, as one linearizable range.
func ask(endpoints []string) (*Served, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: timeout, Logger: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	s := &Served{}
	r, err := c.Get(ctx, "\x00", clientv3.WithFromKey())
	if err != nil {
		return nil, err
	}
	s.Revision = r.Header.Revision
	for _, kv := range r.Kvs {
		s.Keys = append(s.Keys, keyValue(kv))
	}
	l, err := c.Leases(ctx)
	if err != nil {
		return nil, err
	}
	for _, x := range l.Leases {
		s.Leases = append(s.Leases, int64(x.ID))
	}
	slices.Sort(s.Leases)
	m, err := c.MemberList(ctx)
	if err != nil {
		return nil, err
	}
	for _, x := range m.Members {
		s.Members = append(s.Members, Member{x.ID, x.Name, x.PeerURLs, x.ClientURLs, x.IsLearner})
	}
	return s, nil
}
