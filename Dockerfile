# Two images from one file: `longhaul` (gateway and worker) and `services` (the three microservices).
#   docker build --target longhaul -t longhaul .
# compose.yaml builds both.

ARG BUN=1.4.5

FROM oven/bun:${BUN}-alpine AS packages
WORKDIR /app
COPY package.json bun.lock bunfig.toml ./
RUN bun install --frozen-lockfile --production --ignore-scripts

FROM oven/bun:${BUN}-alpine AS services-packages
WORKDIR /app
COPY services/package.json services/bun.lock services/bunfig.toml ./
RUN bun install --frozen-lockfile --production --ignore-scripts

# What both images share: folders that a fresh named volume inherits with their owner, so that uid 1000 may write.
FROM oven/bun:${BUN}-alpine AS base
RUN mkdir -p /uploads /output /examples /results && chown bun:bun /uploads /output /examples /results
ENV NODE_ENV=production HOST=0.0.0.0 PORT=8000 RESULTS_DIR=/results
# What suits gateway and worker (BUN_START in shared/runtime.ts).
ENV BUN_CONFIG_MAX_HTTP_REQUESTS=65000 MIMALLOC_PURGE_DELAY=10000 MIMALLOC_PURGE_HOLES_MIN_INTERVAL=10000 \
    BUN_GC_TIMER_INTERVAL=20000 BUN_JSC_useWarmUpMarkedBlocks=0 \
    BUN_JSC_thresholdForJITAfterWarmUp=100 BUN_JSC_thresholdForOptimizeAfterWarmUp=300 \
    BUN_JSC_thresholdForOptimizeAfterLongWarmUp=300 BUN_JSC_thresholdForOptimizeSoon=300 \
    BUN_JSC_thresholdForFTLOptimizeAfterWarmUp=1000000 BUN_JSC_thresholdForFTLOptimizeSoon=10000
WORKDIR /app

FROM base AS services
COPY --from=services-packages /app/node_modules node_modules
COPY services/package.json services/bunfig.toml services/*.ts ./
COPY services/lib lib
USER bun
RUN bun make-house.ts /examples
EXPOSE 8000
CMD ["bun", "ifcconvert.ts"]

FROM base AS longhaul
COPY --from=packages /app/node_modules node_modules
COPY --from=services --chown=bun:bun /examples /examples
COPY package.json bunfig.toml gateway.ts worker.ts ./
COPY shared shared
COPY dashboard dashboard
USER bun
EXPOSE 8000 9181
CMD ["bun", "gateway.ts"]
