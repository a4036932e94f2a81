package engineio

import (
	"log/slog"
	"net/http"
	"slices"
	"time"
)

// Options configures a [Server]. The zero value of a field means its default.
type Options struct {
	// Path is where the server answers; it ends in a slash. Default "/engine.io/".
	Path string

	// PingInterval is the time from a pong (or the handshake) to the next ping. Default 25 s.
	PingInterval time.Duration
	// PingTimeout is how long a pong may take before the connection is closed. Default 20 s.
	PingTimeout time.Duration
	// UpgradeTimeout is how long a client may take to complete an upgrade that it began. Default 10 s.
	UpgradeTimeout time.Duration

	// MaxPayload is the largest message over WebSocket and the largest body of a POST, in bytes. Default 1,000,000.
	// The body of a poll's response also stays within it, and within 128 KiB, unless a single frame is larger.
	MaxPayload int
	// QueryBytesMax bounds the query of a handshake, of which a session may keep a part. Default 8 KiB.
	QueryBytesMax int
	// PayloadPacketsMax bounds the packets in the body of one POST. Default 10,000.
	PayloadPacketsMax int
	// FragmentsMax bounds the frames of one WebSocket message. Default 1,024.
	FragmentsMax int
	// MessageTimeout is how long one message, or the body of one POST, may take to arrive, from its first byte. Default 30 s.
	MessageTimeout time.Duration

	// QueueBytesMax bounds what waits to be written to one connection; one that exceeds it is closed. Default 1 MiB.
	QueueBytesMax int
	// WriteTimeout is how long what was taken from the queue may stay unwritten before the connection is closed. Default 10 s.
	WriteTimeout time.Duration

	// ConnsMax bounds the connections. One more is refused with 503. Default 0: no bound.
	ConnsMax int
	// AddressConnsMax bounds those of one client address. One more is refused with 429. Default 0: no bound.
	AddressConnsMax int
	// Address returns what AddressConnsMax counts a request for, on the server's handshakes; an empty string is not counted. Default: the address
	// of Request.RemoteAddr, or of IPv6 its network of 64 bits, which is what one site is given. Behind a proxy that is the proxy's.
	Address func(*http.Request) string
	// FirstPollTimeout is how long after a handshake over polling the first request may take, and how long a polling session that the server has
	// closed waits for a poll to tell it so. Default 10 s. A handshake costs a client less than a session costs the server; later a pong must come.
	FirstPollTimeout time.Duration

	// AllowedOrigins lists the values of the Origin header that may connect, such as "https://chat.example.com". Empty: all, unless there is a
	// Cookie, and without credentials. It governs both transports. A request without Origin does not come from another site's page and is
	// allowed, as is one whose Origin has the host that it is made to.
	AllowedOrigins []string
	// Credentials lets pages of the AllowedOrigins, of which there must be one, send cookies along. NewServer panics without the list, or if it
	// has "*".
	Credentials bool
	// Cookie, if it is not nil, is what the handshake sets on both transports, with the session id as its value, so that a balancer finds the
	// owner of a session. Its Name defaults to "io", its Path to "/", its SameSite to Lax. It is always HttpOnly: its value is a secret that no
	// script needs. The server itself does not read it. NewServer panics if no browser would take it.
	Cookie *http.Cookie

	// SIDPrefix stands at the front of every session id, so that a balancer or another node can find the owner of a polling request.
	// Letters, digits, '-', '_' and '.' only.
	SIDPrefix string

	// Elsewhere, if it is set and SIDPrefix is not empty, is asked about each poll and POST whose session id does not begin with SIDPrefix and
	// is known to nobody here. It answers the request, headers for CORS included, as the node does that owns the session, and returns true; or
	// it leaves it alone and returns false, and the request is refused as one of an unknown session. A WebSocket is refused without asking.
	Elsewhere func(w http.ResponseWriter, r *http.Request) bool

	// ShutdownSpread is the time over which Server.Shutdown closes the connections, so that their clients do not come back all at once.
	// Default 0: at once.
	ShutdownSpread time.Duration

	// Logger hears of panics. Default: discards.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	setDefault(&o.Path, "/engine.io/")
	setDefault(&o.PingInterval, 25*time.Second)
	setDefault(&o.PingTimeout, 20*time.Second)
	setDefault(&o.UpgradeTimeout, 10*time.Second)
	setDefault(&o.MaxPayload, 1_000_000)
	setDefault(&o.QueryBytesMax, 8<<10)
	setDefault(&o.PayloadPacketsMax, 10_000)
	setDefault(&o.FragmentsMax, 1024)
	setDefault(&o.MessageTimeout, 30*time.Second)
	setDefault(&o.QueueBytesMax, 1<<20)
	setDefault(&o.WriteTimeout, 10*time.Second)
	setDefault(&o.FirstPollTimeout, 10*time.Second)
	if o.Address == nil {
		o.Address = addressOf
	}
	if o.Cookie != nil {
		cookie := *o.Cookie
		setDefault(&cookie.Name, "io")
		setDefault(&cookie.Path, "/")
		setDefault(&cookie.SameSite, http.SameSiteLaxMode)
		cookie.Value, cookie.HttpOnly = "", true
		o.Cookie = &cookie
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// check panics for what cannot be served safely, which is an error of the caller. o has its defaults.
func (o Options) check() {
	if o.Credentials && (len(o.AllowedOrigins) == 0 || slices.Contains(o.AllowedOrigins, "*")) {
		panic("engineio: Options.Credentials needs Options.AllowedOrigins, each by name")
	}
	if o.Cookie == nil {
		return
	}
	if err := o.Cookie.Valid(); err != nil {
		panic("engineio: Options.Cookie: " + err.Error())
	}
	if o.Cookie.SameSite == http.SameSiteNoneMode && !o.Cookie.Secure {
		panic("engineio: Options.Cookie: browsers want Secure where SameSite is None")
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
