// The sidecar of Dapr, with the state components that tenure's suite runs on and no others: all of
// them take three times as long to build.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"

	pgv1 "github.com/dapr/components-contrib/state/postgresql/v1"
	pgv2 "github.com/dapr/components-contrib/state/postgresql/v2"
	"github.com/dapr/components-contrib/state/redis"
	"github.com/dapr/components-contrib/state/sqlite"
	"github.com/dapr/dapr/pkg/components"
	"github.com/dapr/dapr/pkg/components/bindings"
	"github.com/dapr/dapr/pkg/components/configuration"
	"github.com/dapr/dapr/pkg/components/conversation"
	"github.com/dapr/dapr/pkg/components/crypto"
	"github.com/dapr/dapr/pkg/components/lock"
	middleware "github.com/dapr/dapr/pkg/components/middleware/http"
	"github.com/dapr/dapr/pkg/components/nameresolution"
	"github.com/dapr/dapr/pkg/components/pubsub"
	"github.com/dapr/dapr/pkg/components/secretstores"
	"github.com/dapr/dapr/pkg/components/state"
	"github.com/dapr/dapr/pkg/healthz"
	"github.com/dapr/dapr/pkg/metrics"
	"github.com/dapr/dapr/pkg/modes"
	"github.com/dapr/dapr/pkg/runtime"
	"github.com/dapr/dapr/pkg/runtime/registry"
	"github.com/dapr/dapr/pkg/security"
	"github.com/dapr/kit/concurrency"
	"github.com/dapr/kit/logger"
	"github.com/dapr/kit/signals"
)

func main() {
	application := flag.String("app-id", "tenure-tests", "the application that this sidecar serves")
	http := flag.String("http-port", "3500", "where it is asked")
	grpc := flag.String("grpc-port", "50001", "where it would be asked over gRPC")
	internal := flag.String("internal-port", "50002", "where other sidecars would reach it")
	resources := flag.String("resources", "", "the folder of its components")
	version := flag.Bool("version", false, "say which release it is, and end")
	flag.Parse()
	if *version {
		fmt.Println("daprd 1.16.5 with three state stores")
		return
	}

	quiet := logger.DefaultOptions()
	quiet.OutputLevel = "warn"
	if err := logger.ApplyOptionsToLoggers(&quiet); err != nil {
		log.Fatal(err)
	}
	known := stateStores()
	health := healthz.New()
	ctx := signals.Context()
	provider, err := security.New(ctx, security.Options{
		AppID: *application, Mode: modes.StandaloneMode, Healthz: health,
		ControlPlaneTrustDomain: "localhost",
	})
	if err != nil {
		log.Fatal(err)
	}
	sidecar := func(ctx context.Context) error {
		handler, err := provider.Handler(ctx)
		if err != nil {
			return err
		}
		sidecar, err := runtime.FromConfig(ctx, &runtime.Config{
			AppID:                         *application,
			Mode:                          string(modes.StandaloneMode),
			ResourcesPath:                 []string{*resources},
			DaprHTTPPort:                  *http,
			DaprAPIGRPCPort:               *grpc,
			DaprInternalGRPCPort:          *internal,
			DaprInternalGRPCListenAddress: "127.0.0.1",
			DaprAPIListenAddresses:        "127.0.0.1",
			ProfilePort:                   "0",
			AllowedOrigins:                "*",
			AppProtocol:                   "http",
			SchedulerStreams:              1,
			MaxRequestSize:                4 << 20,
			ReadBufferSize:                4 << 10,
			Metrics:                       metrics.Options{Healthz: health, Log: logger.NewLogger("metrics")},
			Registry:                      known,
			Security:                      handler,
			Healthz:                       health,
		})
		if err != nil {
			return err
		}
		return sidecar.Run(ctx)
	}
	if err := concurrency.NewRunnerManager(provider.Run, sidecar).Run(ctx); err != nil {
		log.Fatal(err)
	}
}

// stateStores are the three kinds of state store; of all else there is none.
func stateStores() *registry.Options {
	said := logger.NewLogger("dapr.contrib")
	state.DefaultRegistry.Logger = said
	state.DefaultRegistry.RegisterComponent(redis.NewRedisStateStore, "redis")
	state.DefaultRegistry.RegisterComponent(sqlite.NewSQLiteStateStore, "sqlite")
	state.DefaultRegistry.RegisterComponentWithVersions("postgresql", components.Versioning{
		Preferred: components.VersionConstructor{
			Version: "v2", Constructor: pgv2.NewPostgreSQLStateStore,
		},
		Others: []components.VersionConstructor{
			{Version: "v1", Constructor: pgv1.NewPostgreSQLStateStore},
		},
		Default: "v1",
	})
	return registry.NewOptions().
		WithStateStores(state.DefaultRegistry).
		WithSecretStores(secretstores.DefaultRegistry).
		WithConfigurations(configuration.DefaultRegistry).
		WithLocks(lock.DefaultRegistry).
		WithPubSubs(pubsub.DefaultRegistry).
		WithNameResolutions(nameresolution.DefaultRegistry).
		WithBindings(bindings.DefaultRegistry).
		WithCryptoProviders(crypto.DefaultRegistry).
		WithHTTPMiddlewares(middleware.DefaultRegistry).
		WithConversations(conversation.DefaultRegistry)
}
