package bench

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	restartGateways = 3
	// restartLimit is for one of them to send everybody away.
	restartLimit = time.Minute
	// restartLook is how often the gateways are asked how many connections they took on, restartWindow
	// over how long the peak is taken.
	restartLook   = 100 * time.Millisecond
	restartWindow = time.Second
)

// restartRate is the limit of new connections a second of each gateway: so low that two of them take
// some seconds for the streams of the third, and have to refuse some.
func restartRate(s *Settings) int { return max(50, s.Streams/40) }

func restartSeconds(s *Settings) float64 {
	share := float64(s.Streams) / restartGateways / float64(restartRate(s)) // of one gateway, to be taken on by one
	return s.Paced + 4 + share + restartGateways*(2*share+3)                // twice, for the pauses between attempts
}

// rollout is three gateways on one Redis, a crowd over all of them, and streams on the last one whose
// latency is measured.
type rollout struct {
	*cell
	gateways []*server
	crowd    *crowdClient
	single   *load
}

// runRestart restarts one gateway after the other, while streams on the last one are spoken to; and
// then the last one, too, so that everybody was sent away once. Meanwhile it is watched how many
// connections the others take on.
func runRestart(ctx context.Context, c *cell) error {
	r := &rollout{cell: c}
	if err := r.connect(ctx); err != nil {
		return err
	}
	m, err := r.single.paced(ctx, c.singles(c.settings.Paced))
	if err != nil {
		return fmt.Errorf("alone: %w", err)
	}
	alone, err := m.latencies()
	if err != nil {
		return err
	}
	if err := c.addLatency("alone", m, r.single); err != nil {
		return err
	}
	began := time.Now()
	if m, err = r.beside(ctx); err != nil {
		return err
	}
	// Only now, since asking three gateways all the time is itself what a p99 would be of.
	peak := watchConnects(ctx, r.addresses())
	err = r.restart(ctx, restartGateways-1)
	took, most := time.Since(began), peak()
	if err != nil {
		return fmt.Errorf("the last gateway: %w", err)
	}
	during, err := m.latencies()
	if err != nil {
		return err
	}
	away, refused, err := r.sentAway()
	if err != nil {
		return err
	}
	return c.addLatency("rolling", m, r.single, map[string]float64{
		metricTimesAlone: during[metricP99] / alone[metricP99],
		metricSeconds:    took.Seconds(), metricStreams: float64(away), metricRefused: float64(refused),
		metricPeakPerSecond: most, metricPeakOfLimit: most / float64(restartRate(c.settings)),
	})
}

func (r *rollout) addresses() []string {
	var addresses []string
	for _, one := range r.gateways {
		addresses = append(addresses, one.address)
	}
	return addresses
}

// connect starts the gateways and brings all streams there.
func (r *rollout) connect(ctx context.Context) error {
	for range restartGateways {
		address, err := freeAddress()
		if err != nil {
			return err
		}
		running, err := r.start(ctx, startOptions{address: address, acceptRate: restartRate(r.settings)})
		if err != nil {
			return err
		}
		r.gateways = append(r.gateways, running)
	}
	addresses := r.addresses()
	var err error
	if r.crowd, err = r.returning(ctx, r.settings.Streams, sharedChannel, false, addresses); err != nil {
		return err
	}
	r.crowd.child.prioritize(nicenessLoad)
	// Those that are measured begin on the last one.
	last := restartGateways - 1
	single, err := r.returning(ctx, r.besideStreams(), 1, true, addresses[last:])
	if err != nil {
		return err
	}
	single.child.prioritize(nicenessMeasured)
	r.calm(ctx)
	r.single, err = r.newLoad(r.gateways[last], single, 1)
	return err
}

// returning is a crowd whose streams come back when they are sent away.
func (r *rollout) returning(ctx context.Context, count, first int, own bool, addresses []string) (*crowdClient, error) {
	crowd, err := r.site.crowd(ctx)
	if err != nil {
		return nil, err
	}
	plan := r.gateways[0].plan(r.Wire, count)
	plan.Own, plan.First = own, first
	plan.Address, plan.Others, plan.Return = addresses[0], addresses[1:], true
	_, err = crowd.connect(ctx, plan, connectLimit)
	return crowd, err
}

// beside restarts all gateways but the last while the streams on that one are spoken to.
func (r *rollout) beside(ctx context.Context) (*measured, error) {
	var failure error
	over := make(chan struct{})
	go func() {
		defer close(over)
		for i := range restartGateways - 1 {
			if failure = r.restart(ctx, i); failure != nil {
				return
			}
		}
	}()
	during := r.singles(restartGateways * connectLimit.Seconds())
	during.stop = over
	m, err := r.single.paced(ctx, during)
	<-over
	if failure != nil {
		return nil, fmt.Errorf("a restart: %w", failure)
	}
	if err != nil {
		return nil, fmt.Errorf("during a restart: %w", err)
	}
	return m, nil
}

// restart has one gateway send everybody away and end, starts another in its place, and waits until
// everybody is back, wherever that is.
func (r *rollout) restart(ctx context.Context, i int) error {
	old := r.gateways[i]
	if err := old.children[0].drain(ctx, restartLimit); err != nil {
		return err
	}
	running, err := r.start(ctx, startOptions{address: old.address, acceptRate: restartRate(r.settings)})
	if err != nil {
		return err
	}
	r.gateways[i] = running
	for _, crowd := range []*crowdClient{r.crowd, r.single.crowd} {
		if _, err := crowd.live(ctx, connectLimit); err != nil {
			return err
		}
	}
	return nil
}

// sentAway counts the streams that were sent away, and the handshakes that were refused on their way
// back.
func (r *rollout) sentAway() (away, refused int, err error) {
	for _, crowd := range []*crowdClient{r.crowd, r.single.crowd} {
		reply, err := crowd.report()
		if err != nil {
			return 0, 0, err
		}
		away, refused = away+reply.SentAway, refused+reply.Refused
	}
	return away, refused, nil
}

// watchConnects asks gateways how many connections they have taken on, again and again, until stop,
// which gives the most that one of them took on in a second.
func watchConnects(ctx context.Context, addresses []string) (stop func() float64) {
	ctx, cancel := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	peaks := make([]float64, len(addresses))
	for i, address := range addresses {
		watchers.Go(func() { peaks[i] = connectsPeak(ctx, address) })
	}
	return func() float64 {
		cancel()
		watchers.Wait()
		var most float64
		for _, peak := range peaks {
			most = max(most, peak)
		}
		return most
	}
}

// connectsLook is how many connections a gateway had taken on at a time.
type connectsLook struct {
	at    time.Time
	count float64
}

// connectsPeak watches one gateway until ctx is done. A gateway that does not answer is on its way
// down or up; one that counts from the beginning is another one.
func connectsPeak(ctx context.Context, address string) (peak float64) {
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	var looks []connectsLook
	for ctx.Err() == nil {
		count, err := acceptedBy(ctx, client, address)
		now := time.Now()
		if err == nil {
			if len(looks) > 0 && count < looks[len(looks)-1].count {
				looks = nil
			}
			looks = append(looks, connectsLook{now, count})
			for len(looks) > 1 && now.Sub(looks[1].at) >= restartWindow {
				looks = looks[1:]
			}
			if span := now.Sub(looks[0].at); span >= restartWindow {
				peak = max(peak, (count-looks[0].count)/span.Seconds())
			}
		}
		pause(ctx, restartLook)
	}
	return peak
}

// acceptedBy reads from a gateway's metrics how many connections it has taken on.
func acceptedBy(ctx context.Context, client *http.Client, address string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if text, found := strings.CutPrefix(lines.Text(), "millrace_desk_accepted_total "); found {
			return strconv.ParseFloat(text, 64)
		}
	}
	return 0, fmt.Errorf("%s does not tell how many connections it took on", address)
}
