# Completion of onejob for PowerShell. Candidates come from `onejob __complete`.
Register-ArgumentCompleter -Native -CommandName onejob -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements | Select-Object -Skip 1 |
        Where-Object { $_.Extent.EndOffset -lt $cursorPosition } | ForEach-Object { "$_" })
    # An empty argument is not passed to a native command by older versions.
    $current = if ($wordToComplete) { "$wordToComplete" } else { '' }
    foreach ($line in (& onejob __complete @words $current)) {
        if ($line.StartsWith(':')) { return }
        $word, $description = $line -split "`t", 2
        if (-not $description) { $description = $word }
        [System.Management.Automation.CompletionResult]::new($word, $word, 'ParameterValue', $description)
    }
}
