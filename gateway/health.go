package gateway

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/millrace/millrace/broker"
)

// askTimeout is how long a loop may take to answer before it counts as stuck.
const askTimeout = 2 * time.Second

// brokerHealth is what the broker last said of itself.
func (g *Gateway) brokerHealth() broker.Health { return g.broker.Health() }

// serveHealth is GET /healthz: the process is alive and its loops turn.
func (g *Gateway) serveHealth(w http.ResponseWriter, r *http.Request) {
	if err := g.loopsTurn(r.Context(), askTimeout); err != nil {
		g.answer(w, r, refuse(refuseOverloaded, "a loop does not answer"))
		return
	}
	answerJSON(w, http.StatusOK, map[string]string{"status": "alive"})
}

// serveReady is GET /readyz: send me clients. With ?redis it is also false while Redis does not
// deliver; that is kept apart, or one hiccup of Redis would take a whole fleet out of its
// balancer.
func (g *Gateway) serveReady(w http.ResponseWriter, r *http.Request) {
	health := g.brokerHealth()
	switch {
	case g.draining.Load():
		g.answer(w, r, refuse(refuseDraining, "this gateway is draining"))
	case g.loopsTurn(r.Context(), askTimeout) != nil:
		g.answer(w, r, refuse(refuseOverloaded, "a loop does not answer"))
	case !health.Reached:
		g.answer(w, r, refuse(refuseBroker, "the broker was not reached yet: "+health.Reason))
	case r.URL.Query().Has("redis") && !health.Delivering:
		g.answer(w, r, refuse(refuseBroker, "the broker does not deliver: "+health.Reason))
	default:
		answerJSON(w, http.StatusOK, map[string]string{"status": "ready"})
	}
}

// loopsTurn asks every loop for a sign of life, which all of them have to give in time.
func (g *Gateway) loopsTurn(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for _, loop := range g.loops {
		if err := loop.Do(ctx, func() {}); err != nil {
			return fmt.Errorf("loop %d: %w", loop.Index(), err)
		}
	}
	return nil
}
