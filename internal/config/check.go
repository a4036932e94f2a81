package config

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The least that package auth accepts; checked here too, so that the error names the setting.
const (
	secretBytesMin = 32
	apiKeyBytesMin = 16
)

// Validate finds what cannot be or contradicts itself. kong calls it once all is read. The error has a line for each fault,
// which names the setting to change and shows no secret.
func (s *Serve) Validate() error {
	return errors.Join(s.checkServer(), s.checkStorage(), s.checkTokens(), s.checkLimits())
}

func fault(setting, format string, a ...any) error {
	return fmt.Errorf("%s (--%s, %s): %s", setting, setting, variable(setting), fmt.Sprintf(format, a...))
}

func (s *Serve) checkServer() (err error) {
	if _, port, e := net.SplitHostPort(s.Listen); e != nil || !isPort(port) {
		err = errors.Join(err, fault("listen", "%q is no address; write it as 127.0.0.1:3000, or :3000 for all interfaces", s.Listen))
	}
	for _, origin := range s.CORSOrigins {
		u, e := url.Parse(origin)
		if e != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || origin != u.Scheme+"://"+u.Host {
			err = errors.Join(err, fault("cors-origins", "%q is no origin; write it as https://chat.example.com, without a slash at the end", origin))
		}
	}
	for _, network := range s.TrustedProxies {
		if _, e := parseNetwork(network); e != nil {
			err = errors.Join(err, fault("trusted-proxies", "%q is no network; write it as 10.0.0.0/8, or as one address", network))
		}
	}
	return err
}

func (s *Serve) checkStorage() (err error) {
	postgres := strings.HasPrefix(s.DatabaseURL, "postgres://") || strings.HasPrefix(s.DatabaseURL, "postgresql://")
	if s.DatabaseURL != "" && !postgres {
		err = errors.Join(err, fault("database-url", "it must begin with postgres://; leave it empty for SQLite in the data folder"))
	}
	if s.Data.Data == "" {
		err = errors.Join(err, fault("data", "name a folder, such as ./data"))
	}
	if len(s.ClusterRoutes) > 0 && s.ClusterListen == "" {
		err = errors.Join(err, fault("cluster-routes", "routes need an address of this node too: set cluster-listen, such as 0.0.0.0:6222"))
	}
	if s.NATSURL != "" && (s.ClusterListen != "" || len(s.ClusterRoutes) > 0) {
		err = errors.Join(err, fault("nats-url", "it names an outside NATS, while cluster-listen and cluster-routes are for the one inside; set either"))
	}
	if s.ClusterListen != "" && s.DatabaseURL == "" {
		err = errors.Join(err, fault("cluster-listen", "the nodes of a cluster share one PostgreSQL: set database-url"))
	}
	return err
}

func (s *Serve) checkTokens() (err error) {
	if n := len(s.JWTSecret); n > 0 && n < secretBytesMin {
		err = errors.Join(err, fault("jwt-secret", "it has %d bytes and needs %d; make one with: openssl rand -base64 32", n, secretBytesMin))
	}
	for i, k := range s.APIKey {
		if len(k) < apiKeyBytesMin {
			err = errors.Join(err, fault("api-key", "key %d has %d bytes and needs %d; make one with: openssl rand -hex 16", i+1, len(k), apiKeyBytesMin))
		}
	}
	return err
}

func (s *Serve) checkLimits() (err error) {
	const day, mega = 24 * time.Hour, 1 << 20
	duration := func(setting string, d, least time.Duration) {
		if d < least || d > day {
			err = errors.Join(err, fault(setting, "%v is not between %v and %v", d, least, day))
		}
	}
	number := func(setting string, n, least, most int) {
		if n < least || n > most {
			err = errors.Join(err, fault(setting, "%d is not between %d and %d", n, least, most))
		}
	}
	g, c := s.Gateway, s.Chat
	duration("drain-timeout", s.DrainTimeout, time.Second)
	duration("header-timeout", s.HeaderTimeout, time.Second)
	duration("request-timeout", s.RequestTimeout, time.Second)
	duration("idle-timeout", s.IdleTimeout, time.Second)
	number("header-bytes", int(s.HeaderBytesMax), 4<<10, mega)
	duration("gateway-ping-interval", g.PingInterval, time.Second)
	duration("gateway-ping-timeout", g.PingTimeout, time.Second)
	duration("gateway-upgrade-timeout", g.UpgradeTimeout, time.Second)
	duration("gateway-message-timeout", g.MessageTimeout, time.Second)
	duration("gateway-write-timeout", g.WriteTimeout, time.Second)
	duration("gateway-auth-timeout", g.AuthTimeout, time.Second)
	duration("gateway-first-poll-timeout", g.FirstPollTimeout, time.Second)
	if g.Credentials && len(s.CORSOrigins) == 0 {
		err = errors.Join(err, fault("gateway-credentials", "cookies are for pages that are named: set cors-origins"))
	}
	if g.Cookie != "" && (&http.Cookie{Name: g.Cookie}).Valid() != nil {
		err = errors.Join(err, fault("gateway-cookie", "%q is no name of a cookie", g.Cookie))
	}
	duration("gateway-recovery-time", g.RecoveryTime, 0)
	duration("chat-poll-interval", c.PollInterval, 10*time.Millisecond)
	duration("chat-queue-time", c.QueueTimeMax, 100*time.Millisecond)
	duration("gateway-attachment-timeout", g.AttachmentTimeout, time.Second)
	number("gateway-connections", g.ConnsMax, 0, 1<<24)
	number("gateway-address-connections", g.AddressConnsMax, 0, 1<<24)
	number("gateway-user-connections", g.UserConnsMax, 0, 1<<24)
	number("gateway-events-per-second", g.EventsPerSecond, 0, 1<<20)
	number("gateway-events-burst", g.EventsBurst, 1, 1<<20)
	number("gateway-fragments", g.FragmentsMax, 1, 1<<20)
	number("gateway-payload-packets", g.PayloadPacketsMax, 1, 1<<20)
	number("gateway-attachments", g.AttachmentsMax, 1, 1<<10)
	number("gateway-max-payload", int(g.MaxPayload), 1<<10, 64*mega)
	number("gateway-queue-bytes", int(g.QueueBytesMax), 64<<10, sizeMax)
	number("gateway-namespaces", g.NamespacesMax, 1, 1<<10)
	number("gateway-attachment-bytes", int(g.AttachmentBytesMax), 1<<10, 64*mega)
	number("chat-batch", c.BatchMax, 1, 4096)
	number("chat-queue", c.QueueMax, 1, 1<<20)
	number("chat-replay-changes", c.ReplayChangesMax, 1, 1<<17)
	number("chat-replay-bytes", int(c.ReplayBytesMax), 1<<10, 64*mega)
	if g.QueueBytesMax < c.ReplayBytesMax {
		err = errors.Join(err, fault("gateway-queue-bytes", "it is less than chat-replay-bytes, which must fit in"))
	}
	return err
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}
