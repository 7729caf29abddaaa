"""`iwin tool`: what else stands under upstream's tools/; one file a tool, by upstream's names."""

import argparse

from iwin.cli.tools import (
    analyze_logs,
    bench_processing,
    benchmark,
    build_file_list,
    check_videos,
    clip_feature_extraction,
    eval_metric,
    publish_model,
    report_accuracy,
)

TOOLS = (
    build_file_list,
    check_videos,
    analyze_logs,
    eval_metric,
    report_accuracy,
    benchmark,
    bench_processing,
    clip_feature_extraction,
    publish_model,
)


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser("tool", help="lists, checks, logs, speed, features, …", description="Smaller tools.")
    tools = parser.add_subparsers(title="tools", metavar="TOOL", required=True)
    for tool in TOOLS:
        tool.add_parser(tools)
