package gateway

import "github.com/millrace/millrace/netio"

// The gateway's own reasons for ending a stream, after netio's. Each stream ends with one, and
// is counted under its name.
const (
	endClientClosed      = netio.FirstOwnReason + iota // the client's close frame
	endUnauthorized                                    // 1008: no token that is believed
	endAccessDenied                                    // 1008: a channel that is not theirs
	endTokenExpired                                    // 1008, server_error
	endProtocolError                                   // 1002
	endBadText                                         // 1007
	endBadData                                         // 1003: a binary message
	endMessageTooBig                                   // 1009
	endUnfinishedMessage                               // 1008: a message begun and never finished
	endSilent                                          // no frame for the heartbeat timeout
	endSlow                                            // 1013: it does not read its answers
	endFlood                                           // 1008: it will not keep to the rate
	endBrokerUnavailable                               // the broker confirmed nothing in time
	endStreamAge                                       // max-stream-age
	endDrained                                         // 1012: the gateway goes
	endComplete                                        // the program said that the stream is complete
	endDisconnected                                    // 1008: an operator said so
	endMemory                                          // memory is nearly at its bound, and its queue is among the longest
	endHandedOver                                      // another process goes on with it: its client notices nothing
	endCount
)

var endNames = [endCount - netio.FirstOwnReason]string{
	"client_closed", "unauthorized", "access_denied", "token_expired", "protocol_error", "bad_text",
	"bad_data", "message_too_big", "unfinished_message", "silent", "slow", "flood",
	"broker_unavailable", "stream_age", "drained", "complete", "disconnected", "memory", "handed_over",
}

// endName is the reason as metrics and logs spell it.
func endName(reason netio.Reason) string {
	if reason >= netio.FirstOwnReason && reason < endCount {
		return endNames[reason-netio.FirstOwnReason]
	}
	return reason.String()
}
