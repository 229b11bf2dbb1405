package streamtest

import (
	"testing"

	"github.com/iterate/durable-streams/streamlib"
)

// Stream tests that what open returns makes streams that keep the contract of streamlib.Stream. Open is called for
// every subtest and returns the streams of an empty place by name, with default limits. Their hooks, if any, let
// everything pass.
func Stream(t *testing.T, open func(t *testing.T) func(name string) streamlib.Stream) {
	run(t, open, []streamTest{
		{"an append's events stand at the tail, contiguous and in order", testAppend},
		{"data is kept byte for byte but for white space", testData},
		{"data may be changed once append returned", testOwned},
		{"what is no JSON value in UTF-8 is refused", testInvalid},
		{"what is too large is refused", testTooLarge},
		{"names are told apart, and are no paths", testNames},
		{"what is no name is refused", testBadNames},
		{"a batch is there whole or not at all", testAtomic},
		{"racing appends lose nothing and keep their order", testRace},
		{"a read is half-open and ends at the tail", testRead},
		{"a read of a name that was never appended to yields nothing and makes nothing", testReadNothing},
		{"times never go back, and the first event since one is found", testSince},
		{"a subscription yields what is there, then what is appended", testSubscribe},
		{"a subscription from now yields what is appended from now on", testSubscribeNow},
		{"a subscription from beyond the tail waits for that position", testSubscribeBeyond},
		{"subscribing makes nothing", testSubscribeNothing},
		{"racing subscriptions and appends: no gap and no repeat", testSubscribeRace},
		{"a slow reader harms nobody and misses nothing", testSlow},
		{"a context that is done ends what it was given to", testContext},
		{"a deleted stream ends its subscriptions and starts again at 0", testDelete},
		{"a subscription sees one life of a stream", testLives},
		{"a key makes an append happen once", testKey},
		{"a key is good for batches", testKeyBatch},
		{"what can be a key and what cannot", testKeys},
		{"a key wins over a condition", testKeyCondition},
		{"a key is remembered over 10,000 events", testKeyWindow},
		{"of twins with a key one appends", testTwins},
		{"the key of an append that failed is free again", testKeyFree},
		{"a deleted stream's keys are forgotten", testKeyDelete},
		{"a stream ends behind what closed it", testCloses},
		{"a stream is closed on a condition", testCloseCondition},
		{"of what races with a closing, what was acknowledged stands before it", testCloseRace},
		{"what was trimmed is gone, and the rest is as before", testTrim},
		{"a key is remembered of what was trimmed", testTrimKeys},
		{"the last keys are remembered of what was trimmed", testTrimKeysWindow},
		{"a condition on a life is kept", testLifeConditions},
		{"a stream is deleted on a condition", testDeleteIf},
		{"of a deletion on a condition and appends, none that was acknowledged is lost", testDeleteIfRace},
		{"a condition on the tail is kept", testCondition},
		{"of writers with one condition one wins", testConditionRace},
		{"a condition on a life is kept", testLifeConditions},
		{"a stream is deleted on a condition", testDeleteIf},
		{"of a deletion on a condition and appends, none that was acknowledged is lost", testDeleteIfRace},
	})
}

// Admit tests that streams call a batch's Admit, which takes place in the process that stores: it is not for clients.
func Admit(t *testing.T, open func(t *testing.T) func(name string) streamlib.Stream) {
	run(t, open, []streamTest{
		{"admit is called once for a batch that is new", testAdmit},
		{"admit refuses the batch", testAdmitRefuses},
		{"admit is not called for what is refused anyway", testAdmitInvalid},
		{"a twin waits for what admit says", testAdmitTwin},
	})
}

type streamTest struct {
	promise string
	run     func(t *testing.T, open func(name string) streamlib.Stream)
}

func run(t *testing.T, open func(t *testing.T) func(name string) streamlib.Stream, tests []streamTest) {
	for _, test := range tests {
		t.Run(test.promise, func(t *testing.T) { test.run(t, open(t)) })
	}
}
