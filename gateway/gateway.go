package gateway

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/internal/names"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// Gateway is one server: its listeners, loops, hub and broker. Make it with [New], serve with
// [Gateway.Run]. Methods are safe for use by many goroutines.
type Gateway struct {
	options Options
	timings timings
	logger  *slog.Logger
	epoch   string // names this gateway's life in ids
	started time.Time

	broker    broker.Broker
	names     names.Store // of channels: the hub's and the broker's tables share their bytes
	source    hub.Source
	hub       *hub.Hub
	loops     []*netio.Loop
	sessions  []*sessions
	nextLoop  atomic.Uint32
	publisher *publisher
	councils  *councils

	verifier    *auth.Verifier // nil: no authentication
	guard       auth.Guard
	origins     auth.Origins
	proxies     auth.Proxies
	policy      *access.Policy
	rules       *channelRules
	broadcast   []proto.Channel
	hasPersonal bool
	admission   *admission
	orders      *orders

	listener, adminListener *netio.DeskListener
	desk, adminDesk         *netio.Desk

	// Of a live upgrade. parking is held while a stream can be given to no loop, publishing while
	// nothing may be published here; handing is held for as long as a hand-over is tried.
	updates             updateGate
	parking, publishing sync.RWMutex
	handing             sync.Mutex
	serving             chan struct{} // closed when Run has begun to serve
	handedOver          chan struct{} // closed when another process serves

	draining atomic.Bool
	refused  refusalCounts
	health   atomic.Pointer[broker.Health]
	reports  limitedLog
	window   *deliveryWindow
	loopLog  *loopLog

	lifetime context.Context // ends with the gateway; goroutines started for streams live in it
	end      context.CancelFunc
	spawned  sync.WaitGroup
	closing  sync.Once
	slots    chan struct{} // bounds spawned goroutines
}

// spawnedMax bounds the goroutines that ask webhooks and key sets for streams.
const spawnedMax = 256

// New checks the options and makes a gateway that listens already (so that a port that is taken
// is an error here) but serves only in [Gateway.Run]. An error says which option is wrong. A
// gateway that is never run must be closed with [Gateway.Close].
func New(options Options) (*Gateway, error) { return newGateway(options, contractTimings) }

func newGateway(options Options, waits timings) (*Gateway, error) {
	return newHeir(options, waits, &heritage{epoch: newEpoch()})
}

// newHeir makes a gateway that goes on with what another one leaves, which may be no more than a name.
func newHeir(options Options, waits timings, from *heritage) (*Gateway, error) {
	defer options.closeListeners() // a desk serves on copies
	if len(from.ticks) > 0 {
		options.Loops = len(from.ticks) // a stream's name holds the number of its loop
	}
	options, err := options.completed()
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		options: options, timings: waits, logger: options.Logger, epoch: from.epoch, started: time.Now(),
		admission: newAdmission(options.Limits), orders: newOrders(),
		slots: make(chan struct{}, spawnedMax), serving: make(chan struct{}), handedOver: make(chan struct{}),
	}
	g.window = newDeliveryWindow(g.started)
	g.lifetime, g.end = context.WithCancel(context.Background())
	g.loopLog = newLoopLog(g.logger)
	// In this order; on a failure what was started is undone.
	for _, step := range []func(*heritage) error{g.setUpIdentity, g.setUpBroker, g.setUpLoops, g.setUpCouncils, g.listen} {
		if err := step(from); err != nil {
			g.Close()
			return nil, err
		}
	}
	return g, nil
}

func newEpoch() string {
	var random [5]byte
	_, _ = rand.Read(random[:]) // never fails
	return strings.ToLower(base32.StdEncoding.EncodeToString(random[:]))
}

// setUpIdentity makes what decides who may do what.
func (g *Gateway) setUpIdentity(*heritage) (err error) {
	o := &g.options
	if g.origins, err = auth.ParseOrigins(o.AllowedOrigins); err != nil {
		return fmt.Errorf("allowed-origins: %w", err)
	}
	if g.proxies, err = auth.ParseProxies(o.TrustedProxies); err != nil {
		return fmt.Errorf("trusted-proxies: %w", err)
	}
	g.policy, err = access.New(access.Options{
		Namespaces: o.Namespaces, Personal: o.Personal, Broadcast: o.Broadcast,
		Authenticated: o.authenticated(), Demo: o.Demo, Logger: o.Logger,
	})
	if err != nil {
		return err
	}
	for _, name := range g.policy.Broadcast() {
		channel, err := proto.ParseChannel(name)
		if err != nil {
			return fmt.Errorf("broadcast: %w", err)
		}
		g.broadcast = append(g.broadcast, channel)
	}
	if g.rules, err = newChannelRules(g.policy); err != nil {
		return err
	}
	g.hasPersonal = len(g.policy.PersonalChannels("x")) > 0
	if !o.authenticated() {
		g.guard = auth.Guard{AnyHost: o.InsecureNoAuth, Allowed: g.origins}
		return nil
	}
	g.verifier, err = auth.New(g.lifetime, auth.Options{
		HMACSecret: o.Auth.HMACSecret, PublicKeyPEM: o.Auth.PublicKeyPEM, JWKSURL: o.Auth.JWKSURL,
		Audience: o.Auth.Audience, Issuer: o.Auth.Issuer, UserClaim: o.Auth.UserClaim,
		KeepToken: g.policy.NeedsToken(), Logger: o.Logger,
	})
	return err
}

// listen opens the listeners, or takes those of the predecessor, and makes their desks.
func (g *Gateway) listen(from *heritage) (err error) {
	o := &g.options
	if g.listener, err = g.listenOn(o.Listener, o.Listen, &from.listener); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := g.listener.SetUserTimeout(userTimeout(o.Limits.ProgressTimeout)); err != nil {
		return err
	}
	if g.desk, err = netio.NewDesk(g.deskOptions(false)); err != nil {
		return err
	}
	if o.AdminListen == "" {
		return nil
	}
	if g.adminListener, err = g.listenOn(o.AdminListener, o.AdminListen, &from.adminListener); err != nil {
		return fmt.Errorf("admin-listen: %w", err)
	}
	g.adminDesk, err = netio.NewDesk(g.deskOptions(true))
	return err
}

// openListener takes over a listener that was opened elsewhere, or opens one.
func openListener(opened net.Listener, address string, reusePort bool) (*netio.DeskListener, error) {
	if opened != nil {
		return netio.ListenOn(opened)
	}
	return netio.Listen(address, reusePort)
}

// listenOn takes the listener that the predecessor passed, if it did, else the opened one, and else
// opens one.
func (g *Gateway) listenOn(opened net.Listener, address string, passed **netio.DeskListener) (*netio.DeskListener, error) {
	if *passed == nil {
		return openListener(opened, address, g.options.ReusePort)
	}
	listener := *passed
	*passed = nil
	if !isAddressOf(listener.Addr(), address) {
		g.logger.Warn("the address in the settings is another one than that which is served: to change it takes a restart",
			"served", listener.Addr().String(), "settings", address)
	}
	return listener, nil
}

// isAddressOf reports whether who asked for address, HOST:PORT, may have got served.
func isAddressOf(served net.Addr, address string) bool {
	have, ok := served.(*net.TCPAddr)
	want, err := net.ResolveTCPAddr("tcp", address)
	if !ok || err != nil {
		return false
	}
	isAny := len(want.IP) == 0 || want.IP.IsUnspecified()
	return (want.Port == 0 || want.Port == have.Port) && (want.IP.Equal(have.IP) || isAny && have.IP.IsUnspecified())
}

// userTimeout is for how long the kernel waits for a peer that acknowledges or takes nothing: a
// little longer than we do, so that the reason is ours to name.
func userTimeout(progress time.Duration) time.Duration {
	if progress == NoLimit {
		return 0
	}
	return progress + 5*time.Second
}

func (g *Gateway) deskOptions(admin bool) netio.DeskOptions {
	limits := g.options.Limits
	options := netio.DeskOptions{
		Handler:          g.handler(admin),
		Adopt:            g.adopt,
		Abandoned:        func(one any) { g.admission.leave(one.(*guest).ticket) },
		MaxHeadBytes:     max(limits.MaxHeaderBytes, 0),
		MaxBodyBytes:     publishBodyMax(limits.MaxEventBytes),
		HandshakeTimeout: max(limits.HandshakeTimeout, 0),
		Logger:           g.logger,
	}
	if !admin {
		options.AcceptRate = max(limits.AcceptRate, 0)
		options.KeepDescriptors = keptDescriptors(descriptorLimit())
		if g.options.ProxyProtocol {
			options.Relays = g.proxies.Contains
		}
	}
	return options
}

// keptDescriptors is how many descriptors clients never get, of limit: with them Redis is reached
// again, and the operator is answered, when all others are taken.
func keptDescriptors(limit int) int { return min(max(limit/50, 16), 128, limit/4) }

// adopt gives a parked connection to the next loop. While streams are being handed over it waits.
func (g *Gateway) adopt(fd int, early []byte, one any) error {
	g.parking.RLock()
	defer g.parking.RUnlock()
	loop := g.loops[g.nextLoop.Add(1)%uint32(len(g.loops))]
	return loop.Adopt(fd, early, one)
}

// Addr is the address that the gateway listens on.
func (g *Gateway) Addr() net.Addr { return g.listener.Addr() }

// AdminAddr is the address of the admin listener, nil without one.
func (g *Gateway) AdminAddr() net.Addr {
	if g.adminListener == nil {
		return nil
	}
	return g.adminListener.Addr()
}

// Run serves until ctx is done, then drains (at most DrainTimeout) and closes the gateway. It
// returns nil after an orderly end, else what went wrong. A gateway runs once. One that was handed over
// ([Gateway.HandOver]) returns as soon as nothing is left to it.
func (g *Gateway) Run(ctx context.Context) error {
	defer g.Close()
	if g.adminDesk != nil {
		if err := g.adminDesk.Start(g.adminListener); err != nil {
			return fmt.Errorf("admin-listen: %w", err)
		}
	}
	if err := g.desk.Start(g.listener); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	close(g.serving)
	g.spawn(g.trim)
	if g.options.Memory != nil {
		g.spawn(g.watchMemory)
	}
	if g.options.Demo {
		g.spawn(g.demonstrate)
	}
	g.logger.Debug("serving", "address", "http://"+g.Addr().String(), "broker", g.brokerName(), "loops", len(g.loops), "authentication", g.verifier != nil)
	select {
	case <-ctx.Done():
		return g.drainAll()
	case <-g.handedOver:
		return g.retire(ctx)
	}
}

func (g *Gateway) brokerName() string {
	if g.options.Redis == "" {
		return "memory"
	}
	return "redis"
}

// Close ends everything at once, streams included. It is for gateways that are not run; Run
// calls it itself. More than one call is harmless.
func (g *Gateway) Close() { g.closing.Do(g.close) }

func (g *Gateway) close() {
	if g.councils != nil {
		g.councils.close() // first: the ends of their logs go through the broker
	}
	g.end()
	expired, cancel := context.WithCancel(context.Background())
	cancel()
	for _, desk := range []*netio.Desk{g.desk, g.adminDesk} {
		if desk != nil {
			_ = desk.Shutdown(expired)
		}
	}
	for _, listener := range []*netio.DeskListener{g.listener, g.adminListener} {
		if listener != nil {
			_ = listener.Close()
		}
	}
	if g.broker != nil {
		_ = g.broker.Close()
	}
	for _, loop := range g.loops {
		loop.Stop()
	}
	if g.hub != nil {
		g.hub.Close()
	}
	if g.policy != nil {
		g.policy.Close()
	}
	g.spawned.Wait()
	g.loopLog.close()
}

// spawn runs work on a goroutine of its own, at most spawnedMax at a time; more wait their turn
// on theirs. It ends with the gateway.
func (g *Gateway) spawn(work func(ctx context.Context)) {
	g.spawned.Add(1)
	go func() {
		defer g.spawned.Done()
		select {
		case g.slots <- struct{}{}:
			defer func() { <-g.slots }()
			work(g.lifetime)
		case <-g.lifetime.Done():
		}
	}()
}

func (g *Gateway) debugs() bool { return g.logger.Enabled(context.Background(), slog.LevelDebug) }

// loopsDefault: every core up to three; with more, one is left to the desk, tokens and Redis.
func loopsDefault() int {
	cores := runtime.GOMAXPROCS(0)
	if cores > 3 {
		cores--
	}
	return min(cores, 62)
}
