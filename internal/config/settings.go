package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/dustin/go-humanize"
)

// Serve is all that a server can be told. A command that needs less embeds the parts that it needs.
type Serve struct {
	File
	Server
	Log
	Data
	Database
	Bus
	Tokens
	API
	Moderation
	Gateway Gateway `embed:"" prefix:"gateway-"`
	Chat    Chat    `embed:"" prefix:"chat-"`
}

// File says where the rest is written. It cannot stand in the file itself.
type File struct {
	Config string `name:"config" placeholder:"FILE" group:"server" help:"File with settings. Without it, parley.yaml in the working directory is read if there is one."`
}

// Server is about the process.
type Server struct {
	Listen         string        `name:"listen" default:"127.0.0.1:3000" placeholder:"HOST:PORT" group:"server" help:"Address to serve HTTP on; an empty host means all interfaces. If it is not set by flag or variable but the variable PORT is, it is that port on all interfaces."`
	CORSOrigins    List          `name:"cors-origins" placeholder:"ORIGIN,..." group:"server" help:"Origins, such as https://chat.example.com, whose pages may connect, over WebSocket too. Empty: all, without credentials."`
	TrustedProxies List          `name:"trusted-proxies" placeholder:"NETWORK,..." group:"server" help:"Networks, such as 10.0.0.0/8, whose X-Forwarded-For is believed: those of your own proxies. Empty: nobody's, and a client's address is that of its connection."`
	RateLimits     string        `name:"rate-limits" default:"on" enum:"on,off" placeholder:"on|off" group:"server" help:"off lifts all rates and counts for a connection, a user and an address, for measuring on loopback."`
	HeaderTimeout  time.Duration `name:"header-timeout" default:"10s" placeholder:"DURATION" group:"server" help:"How long the header of an HTTP request may take to arrive."`
	RequestTimeout time.Duration `name:"request-timeout" default:"1m" placeholder:"DURATION" group:"server" help:"How long a whole HTTP request may take to arrive."`
	IdleTimeout    time.Duration `name:"idle-timeout" default:"2m" placeholder:"DURATION" group:"server" help:"How long an HTTP connection may wait for its next request."`
	HeaderBytesMax Size          `name:"header-bytes" default:"32KiB" placeholder:"SIZE" group:"server" help:"The largest header of an HTTP request."`
	DrainTimeout   time.Duration `name:"drain-timeout" default:"30s" placeholder:"DURATION" group:"server" help:"How long connections and sends under way may take to end after SIGTERM."`
}

// Proxies are the networks of TrustedProxies.
func (s Server) Proxies() (networks []netip.Prefix) {
	for _, text := range s.TrustedProxies {
		if p, err := parseNetwork(text); err == nil { // Validate has seen to it.
			networks = append(networks, p)
		}
	}
	return networks
}

// parseNetwork reads a network, or a single address.
func parseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap().Prefix(a.Unmap().BitLen())
	}
	return netip.ParsePrefix(text)
}

// Log is about what the server writes to standard error.
type Log struct {
	LogLevel  string `name:"log-level" default:"info" enum:"debug,info,warn,error" placeholder:"LEVEL" group:"server" help:"The least important lines that are logged: debug, info, warn or error."`
	LogFormat string `name:"log-format" default:"text" enum:"text,json" placeholder:"FORMAT" group:"server" help:"The form of log lines: text or json."`
}

// Level is LogLevel for slog.
func (l Log) Level() slog.Level {
	var level slog.Level
	if level.UnmarshalText([]byte(l.LogLevel)) != nil {
		return slog.LevelInfo // Only in a struct that was not read by kong, which knows the four levels.
	}
	return level
}

// Data is where the server keeps what is on its own disk.
type Data struct {
	Data string `name:"data" default:"./data" placeholder:"FOLDER" group:"storage" help:"Folder for the SQLite database and the token secret; made if absent."`
}

// Database is where messages are kept.
type Database struct {
	DatabaseURL string `name:"database-url" placeholder:"URL" group:"storage" help:"PostgreSQL database, as postgres://user:password@host/name. Empty: SQLite in the data folder."`
}

// Source is the database's URL for sqldb: PostgreSQL, or the SQLite file in the data folder.
func (d Database) Source(data Data) string {
	if d.DatabaseURL != "" {
		return d.DatabaseURL
	}
	return "sqlite:" + filepath.Join(data.Data, "parley.db")
}

// Bus is about NATS, over which nodes speak with each other.
type Bus struct {
	NATSURL       string `name:"nats-url" placeholder:"URL" group:"cluster" help:"An outside NATS, as nats://host:4222; several URLs of one cluster are separated by commas. Empty: NATS runs inside this process."`
	ClusterListen string `name:"cluster-listen" placeholder:"HOST:PORT" group:"cluster" help:"Route address of the NATS inside this process, which makes it a node of a cluster; nats://user:password@host:port asks other nodes for a password. Needs PostgreSQL, which the nodes share."`
	ClusterRoutes List   `name:"cluster-routes" placeholder:"URL,..." group:"cluster" help:"Route addresses of other nodes, as nats://user:password@host:port. One that answers is enough."`
}

// Tokens are about how users sign in. Each of the three kinds of key verifies tokens of its own algorithms; without any, a
// secret is made in the data folder.
type Tokens struct {
	JWTSecret   string `name:"jwt-secret" secret:"" placeholder:"SECRET" group:"tokens" help:"Secret that HS256 tokens are signed with, 32 bytes or more. Empty, with no key file and no JWKS URL either: one is made at the first start, as jwt-secret in the data folder."`
	JWTKeyFile  string `name:"jwt-key-file" placeholder:"FILE" group:"tokens" help:"PEM file with the public keys for RS256, ES256 and EdDSA tokens."`
	JWKSURL     string `name:"jwks-url" placeholder:"URL" group:"tokens" help:"JWKS of the service that signs tokens, by https, or by http on this machine; keys may rotate."`
	JWTAudience List   `name:"jwt-audience" placeholder:"NAME,..." group:"tokens" help:"Audiences, one of which a token must name in aud. Empty: not checked."`
	JWTIssuer   string `name:"jwt-issuer" placeholder:"NAME" group:"tokens" help:"Issuer that a token must name in iss. Empty: not checked."`
}

// OwnSecret reports whether tokens are verified with the secret that the data folder holds.
func (t Tokens) OwnSecret() bool { return t.JWTSecret == "" && t.JWTKeyFile == "" && t.JWKSURL == "" }

// API is about calls from an application's own server.
type API struct {
	APIKey List `name:"api-key" secret:"" placeholder:"KEY,..." group:"tokens" help:"Keys, 16 bytes or more each, that an application's own server shows as X-API-Key; several, so that one can be replaced. Empty: none is accepted."`
}

// Moderation is about what messages are flagged.
type Moderation struct {
	ModerationWords      List `name:"moderation-words" default:"spam,abuse" placeholder:"WORD,..." group:"moderation" help:"Words that have a message flagged for moderators."`
	ModerationFailClosed bool `name:"moderation-fail-closed" default:"false" group:"moderation" help:"Refuse a message when moderation fails, instead of letting it through unflagged."`
}

// Gateway bounds each client's connection.
type Gateway struct {
	PingInterval       time.Duration `name:"ping-interval" default:"25s" placeholder:"DURATION" group:"gateway" help:"Time between heartbeats of a connection."`
	PingTimeout        time.Duration `name:"ping-timeout" default:"20s" placeholder:"DURATION" group:"gateway" help:"How long the answer to a heartbeat may take before the connection is closed."`
	UpgradeTimeout     time.Duration `name:"upgrade-timeout" default:"10s" placeholder:"DURATION" group:"gateway" help:"How long an upgrade from long polling to WebSocket may take."`
	MessageTimeout     time.Duration `name:"message-timeout" default:"30s" placeholder:"DURATION" group:"gateway" help:"How long one message may take to arrive, from its first byte."`
	WriteTimeout       time.Duration `name:"write-timeout" default:"10s" placeholder:"DURATION" group:"gateway" help:"How long what is to be sent may stay unsent before the connection is closed."`
	AuthTimeout        time.Duration `name:"auth-timeout" default:"10s" placeholder:"DURATION" group:"gateway" help:"How long a connection may go without signing in before it is closed."`
	RecoveryTime       time.Duration `name:"recovery-time" default:"2m" placeholder:"DURATION" group:"gateway" help:"How long an official client whose connection broke may come back as the same socket, without signing in again. 0: no connection state recovery."`
	ConnsMax           int           `name:"connections" default:"100000" placeholder:"NUMBER" group:"gateway" help:"How many connections this node takes. 0: any number."`
	AddressConnsMax    int           `name:"address-connections" default:"1000" placeholder:"NUMBER" group:"gateway" help:"How many connections one client address, or one IPv6 network of 64 bits, may have at this node; behind a proxy see trusted-proxies. 0: any number."`
	UserConnsMax       int           `name:"user-connections" default:"100" placeholder:"NUMBER" group:"gateway" help:"How many connections one user may have at this node. 0: any number."`
	EventsPerSecond    int           `name:"events-per-second" default:"50" placeholder:"NUMBER" group:"gateway" help:"How many events a second one connection may send in the long run; further ones are refused as rate_limited, and the next is read only when it is due. 0: any number."`
	EventsBurst        int           `name:"events-burst" default:"200" placeholder:"NUMBER" group:"gateway" help:"How many events a connection that was quiet may send at once."`
	MaxPayload         Size          `name:"max-payload" default:"1MB" placeholder:"SIZE" group:"gateway" help:"The largest message or polling body that a client may send."`
	QueueBytesMax      Size          `name:"queue-bytes" default:"1MiB" placeholder:"SIZE" group:"gateway" help:"How much may wait to be sent to one connection; one that is slower is closed, and catches up when it comes back."`
	FirstPollTimeout   time.Duration `name:"first-poll-timeout" default:"10s" placeholder:"DURATION" group:"gateway" help:"How long a polling client may take from its handshake to its first poll."`
	Credentials        bool          `name:"credentials" default:"false" group:"gateway" help:"Let pages of cors-origins, of which there must be one, send cookies along: for a proxy in front that wants them."`
	Cookie             string        `name:"cookie" placeholder:"NAME" group:"gateway" help:"Name of a cookie with the session id, by which a balancer finds the node of a session; without cors-origins only pages of the server's own host may connect then. Empty: none is set."`
	FragmentsMax       int           `name:"fragments" default:"1024" placeholder:"NUMBER" group:"gateway" help:"How many frames one WebSocket message may have."`
	PayloadPacketsMax  int           `name:"payload-packets" default:"10000" placeholder:"NUMBER" group:"gateway" help:"How many packets the body of one polling request may have."`
	AttachmentsMax     int           `name:"attachments" default:"10" placeholder:"NUMBER" group:"gateway" help:"How many binary attachments one packet may have."`
	AttachmentTimeout  time.Duration `name:"attachment-timeout" default:"10s" placeholder:"DURATION" group:"gateway" help:"How long the attachments of a packet may take to arrive."`
	NamespacesMax      int           `name:"namespaces" default:"16" placeholder:"NUMBER" group:"gateway" help:"How many Socket.IO namespaces one connection may join."`
	AttachmentBytesMax Size          `name:"attachment-bytes" default:"4MiB" placeholder:"SIZE" group:"gateway" help:"The most that the binary attachments of one packet may hold together."`
}

// Unlimited is g without the rates and counts that rate-limits=off lifts.
func (g Gateway) Unlimited() Gateway {
	g.AddressConnsMax, g.UserConnsMax, g.EventsPerSecond = 0, 0, 0
	return g
}

// Chat bounds the work of sending and catching up.
type Chat struct {
	BatchMax         int           `name:"batch" default:"256" placeholder:"NUMBER" group:"chat" help:"The most messages that are committed together."`
	QueueMax         int           `name:"queue" default:"8192" placeholder:"NUMBER" group:"chat" help:"How many messages may wait to be committed; further ones are refused as overloaded."`
	QueueTimeMax     time.Duration `name:"queue-time" default:"5s" placeholder:"DURATION" group:"chat" help:"How long a message may wait to be committed before it is refused as overloaded."`
	ReplayChangesMax int           `name:"replay-changes" default:"1000" placeholder:"NUMBER" group:"chat" help:"How many changes are replayed to a client that comes back; one that has missed more pages through sync."`
	ReplayBytesMax   Size          `name:"replay-bytes" default:"512KiB" placeholder:"SIZE" group:"chat" help:"How much is replayed to a client that comes back."`
	PollInterval     time.Duration `name:"poll-interval" default:"2s" placeholder:"DURATION" group:"chat" help:"How often a node looks in the database for messages of other nodes that NATS has not told it of."`
}

// List is several values; commas stand between them, and a backslash before a comma that belongs to a value.
type List []string

// UnmarshalText adds values, without the space around them and without empty ones.
func (l *List) UnmarshalText(text []byte) error {
	for _, item := range kong.SplitEscaped(string(text), ',') {
		if item = strings.TrimSpace(item); item != "" {
			*l = append(*l, item)
		}
	}
	return nil
}

// Size is a number of bytes. It is written as 1000000, 1MB (a million) or 1MiB (1,048,576).
type Size int

// sizeMax keeps a size within what can be allocated at all.
const sizeMax = 1 << 30

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil {
		return fmt.Errorf("%q is no size: write it as 1000000, 1MB or 1MiB", text)
	}
	if n > sizeMax {
		return fmt.Errorf("%q is more than 1GiB", text)
	}
	*s = Size(n)
	return nil
}

// groups are the titles, in the order of the reference.
var groups = []struct{ key, title string }{
	{"server", "Server"},
	{"storage", "Storage"},
	{"cluster", "Cluster"},
	{"tokens", "Signing in"},
	{"moderation", "Moderation"},
	{"gateway", "Limits of a connection"},
	{"chat", "Limits of sending and catching up"},
}
