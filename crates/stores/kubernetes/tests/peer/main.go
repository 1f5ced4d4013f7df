// A replica as Go programs are: client-go's own leader election on a Lease, unchanged.
//
// It reads commands, one a line: `lead` begins to campaign and, once it leads, to act; `resign` ends
// that and gives the Lease back. For each act it writes `act NANOSECONDS` of the machine's monotonic
// clock; `leads` and `ended` stand before the first and after the last of a term.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

func monotonic() int64 {
	var at unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &at); err != nil {
		panic(err)
	}
	return at.Nano()
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "where the API server is")
	namespace := flag.String("namespace", "default", "the Lease's namespace")
	name := flag.String("lease", "", "the Lease")
	identity := flag.String("identity", "", "who this is")
	duration := flag.Duration("lease-duration", 15*time.Second, "LeaseDuration")
	deadline := flag.Duration("renew-deadline", 10*time.Second, "RenewDeadline")
	retry := flag.Duration("retry-period", 2*time.Second, "RetryPeriod")
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		panic(err)
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: *namespace, Name: *name},
		Client:     kubernetes.NewForConfigOrDie(config).CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: *identity},
	}
	resign := func() {}
	over := make(chan struct{}, 1)
	over <- struct{}{}
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		switch commands.Text() {
		case "lead":
			<-over
			ctx, cancel := context.WithCancel(context.Background())
			resign = cancel
			go func() {
				campaign(ctx, lock, *duration, *deadline, *retry)
				over <- struct{}{}
			}()
		case "resign":
			resign()
		}
	}
	resign()
	<-over
}

// One campaign and one term. The Lease is given back only after the last act.
func campaign(ctx context.Context, lock resourcelock.Interface, duration, deadline, retry time.Duration) {
	// Cancelling the election releases at once, so the acts are ended before it is cancelled.
	election, release := context.WithCancel(context.Background())
	acting := make(chan struct{})
	led := make(chan struct{})
	go func() {
		<-ctx.Done()
		select {
		case <-led:
			<-acting
		default:
		}
		release()
	}()
	leaderelection.RunOrDie(election, leaderelection.LeaderElectionConfig{
		Lock:            lock,
		LeaseDuration:   duration,
		RenewDeadline:   deadline,
		RetryPeriod:     retry,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				close(led)
				fmt.Println("leads")
				for leading.Err() == nil && ctx.Err() == nil {
					fmt.Println("act", monotonic())
					time.Sleep(2 * time.Millisecond)
				}
				fmt.Println("ended")
				close(acting)
			},
			OnStoppedLeading: func() {},
		},
	})
	release()
}
